"""Off-screen rendering of MuJoCo scenes: EGL on a GPU, OSMesa on the CPU, else not at all."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import glob
import os
import subprocess
import sys
import weakref
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt

from grpo_ros.errors import SimulatorError

REMEDY = "install libosmesa6 (Debian and Ubuntu: apt-get install libosmesa6)"
OSMESA_LIBRARIES = ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")
GPU_DEVICES = ("/dev/nvidia[0-9]*", "/dev/dri/renderD*")
PROBE_TIMEOUT_S = 20.0
SHADOW_SIZE = 512
"""Pixels of the shadow map; on the CPU it takes most of the time."""
BACKGROUND = (236, 239, 242)
PROBE = "from mujoco.{backend} import GLContext; GLContext(8, 8).make_current()"


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

    Raises:
        SimulatorError: no backend works.
    """

    def __init__(self, model: mujoco.MjModel, width: int, height: int) -> None:
        if problem := rendering_problem():
            raise SimulatorError(f"cannot render: {problem}")
        self.model, self.width, self.height = model, width, height
        self._data = mujoco.MjData(model)
        gl: Any = _make_context(rendering_backend(), width, height)
        gl.make_current()
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, width)
        model.vis.global_.offheight = max(model.vis.global_.offheight, height)
        model.vis.quality.shadowsize = min(model.vis.quality.shadowsize, SHADOW_SIZE)
        model.vis.quality.offsamples = 0 if rendering_backend() == "osmesa" else 4
        self._scene = mujoco.MjvScene(model, maxgeom=1000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._options = mujoco.MjvOption()
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
        for row, image in enumerate(images):
            self._data.qpos[:] = qpos[row]
            if mocap is not None and self.model.nmocap:
                self._data.mocap_pos[:] = mocap[row, :, :3]
                self._data.mocap_quat[:] = mocap[row][:, [6, 3, 4, 5]]
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


def _free(held: dict[str, Any]) -> None:
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
    try:
        if backend == "egl":
            from mujoco.egl import GLContext
        else:
            from mujoco.osmesa import GLContext
        return GLContext(width, height)
    except (ImportError, AttributeError, RuntimeError) as problem:
        raise SimulatorError(f"cannot render with {backend}: {problem}", remedy=REMEDY) from None
