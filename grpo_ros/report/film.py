"""Films of a policy at work: a grid of episodes as one animated WebP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from grpo_ros.errors import BridgeError, SimulatorError
from grpo_ros.files import write_atomically
from grpo_ros.simulators.base import Observation, Simulator
from grpo_ros.simulators.scene_renderer import SceneRenderer
from grpo_ros.simulators.snapshot import Snapshot
from grpo_ros.training.evaluation import held_out_keys

Decide = Callable[[Observation], Tensor]
"""Observation of N environments -> chunk (N, K, A)."""

Begin = Callable[[], Observation]
"""Puts the environments where the film begins; returns what they observe."""

NUM_EPISODES, NUM_COLUMNS = 6, 3
IN_GRID, ALONE = (240, 180), (480, 360)
"""Width and height of pictures, pixels."""
FRAME_RATE_HZ = 10.0
HOLD_FRAMES = 12
"""How long the last picture stands, with its verdict."""
BORDER = 3
SUCCESS, FAILURE = (34, 160, 84), (190, 70, 60)


def film_episodes(
    simulator: Simulator, decide: Decide, path: Path, episodes: int = NUM_EPISODES
) -> str:
    """Film held-out episodes; return "" or why there is no film.

    Every episode's first environments are used; the simulator is left with them finished. A
    finished episode's picture gets a frame: green where the outcome was verified, else red.

    Args:
        simulator: of any engine; the pictures are drawn by MuJoCo.
        decide: gives the deployed action.
        path: of the animated WebP.
        episodes: how many; fewer where the simulator has fewer environments.
    """
    contract, task, num = simulator.contract, simulator.task, min(episodes, simulator.num_envs)
    keys = held_out_keys(num)

    def begin() -> Observation:
        simulator.reset(task.sample(keys), torch.arange(num), keys)
        return simulator.observe()

    return _film(simulator, begin, lambda obs: decide(obs)[:, : contract.num_executed], path, num)


def film_rollouts(simulator: Simulator, start: Snapshot, chunks: Tensor, path: Path) -> str:
    """Film what given actions make of given states; return "" or why there is no film.

    Args:
        simulator: with at least n environments; the others have to be finished.
        start: n rows.
        chunks: (n, T, K, A), of each decision until all have ended.
        path: of the animated WebP.
    """
    num, rest = start.num_rows, simulator.num_envs - start.num_rows
    decisions = iter(torch.cat([chunks, chunks[:1].expand(rest, *chunks.shape[1:])]).unbind(1))
    return _film(
        simulator,
        lambda: simulator.restore(start, range(num), range(num)),
        lambda _: next(decisions),
        path,
        num,
    )


def _film(simulator: Simulator, begin: Begin, decide: Decide, path: Path, num: int) -> str:
    try:
        frames = _record(simulator, begin, decide, num)
    except BridgeError:
        raise  # not the renderer's fault: filmed again once there is a bridge
    except SimulatorError as problem:
        return str(problem)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _encode(frames))
    return ""


def _record(
    simulator: Simulator, begin: Begin, decide: Decide, episodes: int
) -> list[npt.NDArray[np.uint8]]:
    """Return the grid's pictures (H, W, 3), one per 1 / FRAME_RATE_HZ."""
    renderer = SceneRenderer(simulator.task, *(ALONE if episodes == 1 else IN_GRID))
    try:
        return _episodes(simulator, begin(), decide, renderer, episodes)
    finally:
        renderer.close()


def _episodes(
    simulator: Simulator,
    obs: Observation,
    decide: Decide,
    renderer: SceneRenderer,
    episodes: int,
) -> list[npt.NDArray[np.uint8]]:
    ids = torch.arange(episodes)
    stride = max(1, round(simulator.contract.control_rate_hz / FRAME_RATE_HZ))
    pictures = renderer.render(simulator.scene().rows(ids)).numpy()
    frames = [_grid(pictures)]
    done = outcome = torch.zeros(episodes, dtype=torch.bool)
    with torch.no_grad():
        while not bool(done.all()):
            chunk = decide(obs)
            for first in range(0, chunk.shape[1], stride):
                result = simulator.step(chunk[:, first : first + stride])
                moving = torch.nonzero(~done).squeeze(1)
                if len(moving) == 0:
                    break
                pictures[moving] = renderer.render(simulator.scene().rows(moving)).numpy()
                done = (result.terminated | result.truncated)[ids]
                outcome = result.outcome[ids]
                _frame(pictures, done.numpy(), outcome.numpy())
                frames.append(_grid(pictures))
            obs = result.obs
    return frames + [frames[-1]] * HOLD_FRAMES


def _frame(
    pictures: npt.NDArray[np.uint8], done: npt.NDArray[np.bool_], outcome: npt.NDArray[np.bool_]
) -> None:
    """Draw the verdict around finished pictures (n, H, W, 3), in place."""
    for row in np.flatnonzero(done):
        colour = SUCCESS if outcome[row] else FAILURE
        for edge in (
            pictures[row, :BORDER],
            pictures[row, -BORDER:],
            pictures[row, :, :BORDER],
            pictures[row, :, -BORDER:],
        ):
            edge[:] = colour


def _grid(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return pictures (n, H, W, 3) side by side, NUM_COLUMNS in a row."""
    num, height, width, _ = pictures.shape
    columns = min(num, NUM_COLUMNS)
    rows = -(-num // columns)
    grid = np.full((rows * height, columns * width, 3), 255, dtype=np.uint8)
    for i, picture in enumerate(pictures):
        row, column = divmod(i, columns)
        grid[row * height : (row + 1) * height, column * width : (column + 1) * width] = picture
    return grid


def _encode(frames: list[npt.NDArray[np.uint8]]) -> bytes:
    import io

    from PIL import Image

    images = [Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    images[0].save(
        buffer,
        format="WEBP",
        save_all=True,
        append_images=images[1:],
        duration=round(1000 / FRAME_RATE_HZ),
        loop=0,
        quality=55,
        method=2,
    )
    return buffer.getvalue()
