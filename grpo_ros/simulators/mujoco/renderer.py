"""Off-screen rendering of MuJoCo scenes: EGL on a GPU, OSMesa on the CPU, else not at all."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import glob
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt

from grpo_ros.errors import SimulatorError

REMEDY = "install libosmesa6 (Debian and Ubuntu: apt-get install libosmesa6)"
OSMESA_LIBRARIES = ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")
GPU_DEVICES = ("/dev/nvidia[0-9]*", "/dev/dri/renderD*")
PROBE_TIMEOUT_S = 20.0
BACKGROUND = (236, 239, 242)
SIZES = ("offwidth", "offheight")
"""Settings of a model's `vis.global_`; the others that a context takes are in `vis.quality`."""
PROBE = "from mujoco.{backend} import GLContext; GLContext(8, 8).make_current()"


@dataclasses.dataclass(frozen=True)
class Detail:
    """How much is drawn; on the CPU a vertex costs more than a pixel, and shadows draw all twice.

    Attributes:
        shadow_size: pixels of the shadow map's side; 0: no shadows.
        num_slices, num_stacks: subdivisions of cylinders and spheres, around and along the axis.
        num_quads: subdivisions of a box's side.
        num_samples: per pixel, on a GPU.
    """

    shadow_size: int
    num_slices: int
    num_stacks: int
    num_quads: int
    num_samples: int


FILM = Detail(shadow_size=512, num_slices=28, num_stacks=16, num_quads=4, num_samples=4)
OBSERVATION = Detail(shadow_size=0, num_slices=12, num_stacks=4, num_quads=1, num_samples=0)
"""Of images that a policy sees: small ones, many of them."""


@functools.cache
def rendering_backend() -> str:
    """Return egl, osmesa, or "" where neither works; what MUJOCO_GL names is tried alone.

    Each is tried in a process of its own: a backend that fails leaves PyOpenGL unusable for the
    next one.
    """
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    if wanted in ("disable", "disabled", "off", "false", "0"):
        return ""
    candidates = [wanted] if wanted in ("egl", "osmesa") else []
    if not candidates and any(glob.glob(pattern) for pattern in GPU_DEVICES):
        candidates.append("egl")
    if not wanted and _has_osmesa():
        candidates.append("osmesa")
    for backend in candidates:
        if _works(backend):
            return backend
    return ""


def rendering_problem() -> str:
    """Return why nothing can be rendered and what to do; "" where it can."""
    if rendering_backend():
        return ""
    chosen = os.environ.get("MUJOCO_GL")
    if chosen:
        return f"MUJOCO_GL={chosen} does not work here; unset it, or {REMEDY}"
    return f"neither EGL nor OSMesa works here; {REMEDY}"


class MujocoRenderer:
    """Renders rows of generalised positions; not thread-safe, one context for all rows.

    Args:
        model: the scene.
        width, height: of images, pixels.
        detail: how much is drawn.

    Raises:
        SimulatorError: no backend works.
    """

    def __init__(
        self, model: mujoco.MjModel, width: int, height: int, detail: Detail = FILM
    ) -> None:
        if problem := rendering_problem():
            raise SimulatorError(f"cannot render: {problem}")
        self.model, self.width, self.height = model, width, height
        self._data = mujoco.MjData(model)
        gl: Any = _make_context(rendering_backend(), width, height)
        gl.make_current()
        self._scene = mujoco.MjvScene(model, maxgeom=1000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = detail.shadow_size > 0
        self._options = mujoco.MjvOption()
        with _visual_settings(model, width, height, detail):
            context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        self._held: dict[str, Any] = {"context": context, "gl": gl}
        # Runs at exit too, while the modules that are needed for it are still there.
        self._finalizer = weakref.finalize(self, _free, self._held)
        self._viewport = mujoco.MjrRect(0, 0, width, height)
        self._depth = np.empty((height, width), dtype=np.float32)

    def render(
        self,
        qpos: npt.NDArray[np.float64],
        mocap: npt.NDArray[np.float64] | None = None,
        camera: str = "overview",
    ) -> npt.NDArray[np.uint8]:
        """Return images (n, H, W, 3) uint8.

        Args:
            qpos: (n, nq) generalised positions.
            mocap: (n, nmocap, 7) positions and quaternions x, y, z, w of mocap bodies.
            camera: name of a camera of the model.
        """
        if not self._held:
            raise SimulatorError("the renderer is closed")
        self._held["gl"].make_current()
        view = mujoco.MjvCamera()
        view.type = mujoco.mjtCamera.mjCAMERA_FIXED
        view.fixedcamid = self.model.camera(camera).id
        images = np.empty((len(qpos), self.height, self.width, 3), dtype=np.uint8)
        if mocap is not None:
            mocap = mocap[:, :, [0, 1, 2, 6, 3, 4, 5]]
        for row, image in enumerate(images):
            self._data.qpos[:] = qpos[row]
            if mocap is not None and self.model.nmocap:
                self._data.mocap_pos[:] = mocap[row, :, :3]
                self._data.mocap_quat[:] = mocap[row, :, 3:]
            mujoco.mj_kinematics(self.model, self._data)
            mujoco.mj_camlight(self.model, self._data)
            mujoco.mjv_updateScene(
                self.model,
                self._data,
                self._options,
                None,
                view,
                mujoco.mjtCatBit.mjCAT_ALL.value,
                self._scene,
            )
            mujoco.mjr_render(self._viewport, self._scene, self._held["context"])
            mujoco.mjr_readPixels(image, self._depth, self._viewport, self._held["context"])
            image[self._depth >= 1.0] = BACKGROUND
        return np.ascontiguousarray(images[:, ::-1])

    def close(self) -> None:
        """Free the context; idempotent."""
        self._finalizer()


@contextlib.contextmanager
def _visual_settings(
    model: mujoco.MjModel, width: int, height: int, detail: Detail
) -> Iterator[None]:
    """Let a model have the settings that a context is made with; it has its own again after."""
    wanted = {
        "offwidth": width,
        "offheight": height,
        "shadowsize": detail.shadow_size,
        "offsamples": 0 if rendering_backend() == "osmesa" else detail.num_samples,
        "numslices": detail.num_slices,
        "numstacks": detail.num_stacks,
        "numquads": detail.num_quads,
    }
    parts = {name: model.vis.global_ if name in SIZES else model.vis.quality for name in wanted}
    before = {name: getattr(part, name) for name, part in parts.items()}
    try:
        for name, value in wanted.items():
            setattr(parts[name], name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(parts[name], name, value)


def _free(held: dict[str, Any]) -> None:
    held["gl"].make_current()  # in whichever thread this is
    for name in ("context", "gl"):
        held.pop(name).free()


def _has_osmesa() -> bool:
    for library in OSMESA_LIBRARIES:
        with contextlib.suppress(OSError):
            ctypes.CDLL(library)
            return True
    return False


def _works(backend: str) -> bool:
    environment = {**os.environ, "MUJOCO_GL": backend, "PYOPENGL_PLATFORM": backend}
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE.format(backend=backend)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PROBE_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _make_context(backend: str, width: int, height: int) -> Any:
    # Importing the backend's own module, not mujoco.Renderer: that one decides at `import mujoco`.
    os.environ.setdefault("PYOPENGL_PLATFORM", backend)
    # Mesa's own threads cost more than small images take; read when its library is loaded.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    try:
        if backend == "egl":
            from mujoco.egl import GLContext
        else:
            from mujoco.osmesa import GLContext
        return GLContext(width, height)
    except (ImportError, AttributeError, RuntimeError) as problem:
        raise SimulatorError(f"cannot render with {backend}: {problem}", remedy=REMEDY) from None
