"""The complete state of an Isaac Lab environment, row by row.

Isaac Lab's own `get_state` and `reset_to` leave out collections of rigid objects, joint targets
(which `reset_to` overwrites with the measured velocities), the solver's warm start, and whatever
managers, actuators and sensors remember. All of it is read and written here.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor

from grpo_ros.simulators.isaaclab import buffers
from grpo_ros.simulators.isaaclab.newton import NewtonSolver

MANAGERS = (
    "action_manager",
    "observation_manager",
    "command_manager",
    "termination_manager",
    "reward_manager",
)
NOT_STATE = ("_env", "_asset", "_sim", "_scene", "cfg", "_cfg", "_control")
ENGINES = (
    "newton",
    "warp",
    "mujoco",
    "pxr",
    "isaaclab.assets",
    "isaaclab.scene",
    "isaaclab.sim",
    "isaaclab_newton.assets",
    "isaaclab_physx.assets",
)
"""Modules whose objects stand for the scene, which is read by itself."""
FRAMES = "_buffer"
MAX_DEPTH = 6
WARM_START = "solver/warm_start"


class EnvironmentState:
    """Reads and writes all rows of one environment.

    Args:
        env: a ManagerBasedRLEnv.
        solver: its solver.
    """

    def __init__(self, env: Any, solver: NewtonSolver) -> None:
        self._env, self._solver, self.num_envs = env, solver, int(env.num_envs)

    def read(self) -> dict[str, Tensor]:
        """Return name -> (N, ...) copies on the CPU."""
        state = {name: value.cpu().clone() for name, value in self._physical()}
        state.update(self.remembered())
        state[WARM_START] = self._solver.read_warm_start().cpu().clone()
        return state

    def write(self, ids: Tensor, rows: dict[str, Tensor]) -> None:
        """Put rows (n, ...) into environments (n,)."""
        scene, device = self._env.scene, self._env.device
        on_device, before = ids.to(device, torch.int32), self.remembered()
        scene.reset_to(_nested(rows), on_device, is_relative=True)
        for name, group in scene.rigid_object_collections.items():
            pose, velocity = (
                rows[f"collection/{name}/{part}"].to(device) for part in ("pose", "velocity")
            )
            group.write_body_link_pose_to_sim_index(body_poses=pose, env_ids=on_device)
            group.write_body_com_velocity_to_sim_index(body_velocities=velocity, env_ids=on_device)
        # reset_to overwrites joint targets, and lets actuators of all environments take a command
        self.recall(torch.arange(self.num_envs), before)
        self.recall(ids, rows)
        self._env.sim.forward()  # clears the warm start of what was written
        self._solver.write_warm_start(on_device, rows[WARM_START].to(device))

    def remembered(self) -> dict[str, Tensor]:
        """Return name -> (N, ...) copies on the CPU of all that is no physics."""
        state = {}
        for name, value in self._remembered():
            rows = value if isinstance(value, Tensor) else buffers.read_frames(value)
            if rows is not None:
                state[name] = rows.cpu().clone()
        return state

    def recall(self, ids: Tensor, rows: dict[str, Tensor]) -> None:
        """Put what `remembered` gave (n, ...) into environments (n,)."""
        for name, value in self._remembered():
            if name not in rows:
                continue
            if isinstance(value, Tensor):
                value[ids.to(value.device)] = rows[name].to(value.device)
            else:
                buffers.write_frames(value, ids, rows[name])

    def _physical(self) -> Iterator[tuple[str, Tensor]]:
        """Yield what `scene.reset_to` takes, and the collections."""
        scene = self._env.scene
        for kind, assets in scene.get_state(is_relative=True).items():
            for name, parts in assets.items():
                if isinstance(parts, Tensor):
                    yield f"scene/{kind}/{name}", parts
                    continue
                for part, value in parts.items():
                    yield f"scene/{kind}/{name}/{part}", value
        for name, group in scene.rigid_object_collections.items():
            yield f"collection/{name}/pose", group.data.body_link_pose_w.torch
            yield f"collection/{name}/velocity", group.data.body_com_vel_w.torch

    def _remembered(self) -> Iterator[tuple[str, Any]]:
        """Yield what managers, actuators and sensors hold of each environment.

        Every array with a row per environment, and every buffer whose frames have them.
        """
        env, seen = self._env, set[int]()
        yield "episode_length", env.episode_length_buf
        for name in MANAGERS:
            yield from self._walk(getattr(env, name, None), name, seen, 0)
        for name, asset in env.scene.articulations.items():
            yield from self._walk(asset.actuators, f"actuators/{name}", seen, 0)
        for name, sensor in env.scene.sensors.items():
            yield from self._walk(sensor, f"sensors/{name}", seen, 0)

    def _walk(self, node: Any, path: str, seen: set[int], depth: int) -> Iterator[tuple[str, Any]]:
        if depth > MAX_DEPTH or id(node) in seen:
            return
        seen.add(id(node))
        array = _as_tensor(node)
        if array is not None:
            if array.ndim and array.shape[0] == self.num_envs and not _is_index(path):
                yield path, array
            return
        frames = FRAMES if buffers.is_buffer(node) else ""
        if frames:
            yield f"{path}/{frames}", node
        if isinstance(node, dict):
            items = [(str(key), value) for key, value in node.items()]
        elif isinstance(node, list | tuple):
            items = [(str(i), value) for i, value in enumerate(node)]
        elif hasattr(node, "__dict__") and not _is_elsewhere(node):
            items = [(k, v) for k, v in vars(node).items() if k not in (*NOT_STATE, frames)]
        else:
            return
        for name, value in items:
            yield from self._walk(value, f"{path}/{name}", seen, depth + 1)


def _nested(rows: dict[str, Tensor]) -> dict[str, Any]:
    """Return the rows of `_physical` as `scene.reset_to` takes them: kind, asset, part."""
    nested: dict[str, Any] = {}
    for path, value in rows.items():
        if path.startswith("scene/"):
            kind, name, *part = path.removeprefix("scene/").split("/")
            assets = nested.setdefault(kind, {})
            if part:
                assets.setdefault(name, {})[part[0]] = value
            else:
                assets[name] = value
    return nested


def _as_tensor(node: Any) -> Tensor | None:
    """Return a tensor that shares memory with a torch or warp array; None for anything else."""
    if isinstance(node, Tensor):
        return node
    name = type(node).__name__
    if name == "ProxyArray":
        return node.torch  # type: ignore[no-any-return]
    if name == "array" and type(node).__module__.startswith("warp"):
        import warp

        return warp.to_torch(node) if node.dtype in _plain_types() and node.size else None
    return None


def _plain_types() -> tuple[Any, ...]:
    import warp

    return (warp.float32, warp.int32, warp.int64, warp.bool, warp.vec3f, warp.quatf)


def _is_elsewhere(node: Any) -> bool:
    """Whether an object is a class, a function, or part of the engine."""
    return isinstance(node, type | FunctionType | MethodType) or type(node).__module__.startswith(
        ENGINES
    )


def _is_index(path: str) -> bool:
    """Whether an array names joints, bodies or environments instead of describing them."""
    last = path.rsplit("/", 1)[-1].lower()
    return any(word in last for word in ("_ids", "indices", "index"))
