"""Images of observed cameras: drawn on threads, every scene once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import mujoco
import numpy as np
import numpy.typing as npt

from grpo_ros.errors import SimulatorError
from grpo_ros.simulators.mujoco.renderer import OBSERVATION, MujocoRenderer

Images = npt.NDArray[np.uint8]


class ObservedImages:
    """Renders rows of generalised positions for observations.

    An image is a function of positions and camera alone, bit for bit, whichever thread draws it
    and whatever it draws beside. So equal rows, as in a group at its start, are drawn once, and
    rows of the last call, as of finished environments, not again.

    Args:
        model: the scene.
        width, height: of images, pixels.
        num_threads: each with a context of its own.

    Raises:
        SimulatorError: no backend works.
    """

    def __init__(
        self, model: mujoco.MjModel, width: int, height: int, num_threads: int = 1
    ) -> None:
        self._threads = [ThreadPoolExecutor(1, f"render_{i}") for i in range(max(1, num_threads))]
        # One after the other: a context is made with settings that the model has for that long.
        self._renderers = [
            thread.submit(MujocoRenderer, model, width, height, OBSERVATION).result()
            for thread in self._threads
        ]
        self._last: dict[str, dict[bytes, Images]] = {}

    def render(
        self, qpos: npt.NDArray[np.float64], mocap: npt.NDArray[np.float64], camera: str
    ) -> Images:
        """Return images (n, H, W, 3) uint8; arguments as of `MujocoRenderer.render`."""
        if not self._renderers:
            raise SimulatorError("the renderer is closed")
        states = np.concatenate([qpos, mocap.reshape(len(qpos), -1)], axis=1)
        keys = [state.tobytes() for state in states]
        last = self._last.get(camera, {})
        rows = list({key: row for row, key in enumerate(keys) if key not in last}.values())
        images = self._draw(qpos[rows], mocap[rows], camera)
        drawn = {keys[row]: image for row, image in zip(rows, images, strict=True)}
        known = {key: drawn[key] if key in drawn else last[key] for key in keys}
        self._last[camera] = known
        return np.stack([known[key] for key in keys])

    def _draw(
        self, qpos: npt.NDArray[np.float64], mocap: npt.NDArray[np.float64], camera: str
    ) -> list[Images]:
        """Return n images (H, W, 3), each an array of its own."""
        parts = np.array_split(np.arange(len(qpos)), len(self._threads))
        running = [
            thread.submit(renderer.render, qpos[part], mocap[part], camera)
            for thread, renderer, part in zip(self._threads, self._renderers, parts, strict=True)
            if len(part)
        ]
        return [image.copy() for part in running for image in part.result()]

    def forget(self) -> None:
        """Let the next call draw all of its rows."""
        self._last.clear()

    def close(self) -> None:
        """Free the contexts and end the threads; idempotent."""
        while self._renderers:
            thread, renderer = self._threads.pop(), self._renderers.pop()
            thread.submit(renderer.close).result()
            thread.shutdown()
