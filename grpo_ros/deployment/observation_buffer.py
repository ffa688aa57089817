"""Observation buffer: the latest stamped inputs, checked, as one SceneState.

Joint states arrive by name, in any order and in parts (an arm and a gripper may report apart);
poses arrive by body. Nothing malformed is stored. Stamps are integer nanoseconds of one clock.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from grpo_ros.contract import Contract, ObservationField
from grpo_ros.observations import TIP, body_names
from grpo_ros.robots.robot import Robot
from grpo_ros.tasks.scene_state import SceneState

Array = npt.NDArray[np.float64]
NANOSECONDS = 1_000_000_000
COMMANDED_MAX_AGE_S = 0.1
"""Oldest usable position of a commanded joint that no observation field names."""
UNIT_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Reading:
    """One complete, fresh and aligned set of inputs.

    Attributes:
        scene: one row, float64.
        oldest_ns: stamp of the oldest input. newest_ns: of the newest.
        age_s: age of the oldest input.
    """

    scene: SceneState
    oldest_ns: int
    newest_ns: int
    age_s: float


@dataclasses.dataclass(frozen=True)
class NotReady:
    """Why there is no reading: what is missing, stale, skewed or from the future, by name."""

    kind: Literal["missing", "stale", "skewed", "future"]
    reason: str


@dataclasses.dataclass(frozen=True)
class _Need:
    """The inputs that one field reads, and how old and how far apart they may be."""

    joints: tuple[str, ...]
    velocities: tuple[str, ...]
    bodies: tuple[str, ...]
    max_age_ns: int
    max_skew_ns: int


class ObservationBuffer:
    """Holds the newest value of every input that a contract names.

    Args:
        contract: what is observed.
        robot: whose measured joints give the tip.
    """

    def __init__(self, contract: Contract, robot: Robot) -> None:
        self.base_frame = robot.base_frame
        self._needs = [_need(field, robot.arm_joints) for field in contract.observation]
        age, skew = (int(s * NANOSECONDS) for s in (COMMANDED_MAX_AGE_S, COMMANDED_MAX_AGE_S))
        self._needs.append(_Need(contract.joint_names, (), (), age, skew))
        joints = [*contract.joint_names]
        for need in self._needs:
            joints += [name for name in (*need.joints, *need.velocities) if name not in joints]
        self.joint_names: tuple[str, ...] = tuple(joints)
        self.body_names: tuple[str, ...] = body_names(contract)
        self.rejected: Counter[str] = Counter()
        self.last_rejection = ""
        self._columns = {name: column for column, name in enumerate(self.joint_names)}
        self._orders: dict[tuple[str, ...], tuple[list[int], list[int]]] = {}
        self.clear()

    def clear(self) -> None:
        """Forget every input, e.g. after the clock jumped back."""
        self._not_before_ns = 0
        num_joints = len(self.joint_names)
        self._position: Array = np.full(num_joints, np.nan)
        self._velocity: Array = np.full(num_joints, np.nan)
        self._joint_ns = np.full(num_joints, -1, dtype=np.int64)
        self._poses: dict[str, tuple[int, Array]] = {}

    def forget_before(self, stamp_ns: int) -> None:
        """Forget inputs older than a stamp and refuse such inputs from now on."""
        self._not_before_ns = stamp_ns
        old = self._joint_ns < stamp_ns
        self._position[old] = self._velocity[old] = np.nan
        self._joint_ns[old] = -1
        self._poses = {name: held for name, held in self._poses.items() if held[0] >= stamp_ns}

    # ---------------------------------------------------------------- inputs

    def put_joint_state(
        self, stamp_ns: int, names: Sequence[str], position: Array, velocity: Array
    ) -> bool:
        """Store the joints that are needed, by name; return False where the input is refused.

        Args:
            stamp_ns: when it was measured.
            names: J names in any order; joints that nothing needs are passed over.
            position: (J,) float64, rad or m.
            velocity: (J,) float64, or empty where it is not measured.
        """
        if len(position) != len(names) or len(velocity) not in (0, len(names)):
            return self._refuse(
                "width",
                f"{len(names)} names, {len(position)} positions, {len(velocity)} velocities",
            )
        if stamp_ns < self._not_before_ns:
            return False
        order = self._order(tuple(names))
        if order is None:
            return self._refuse("duplicate", f"joint names {list(names)} repeat")
        columns, sources = order
        chosen = position[sources]
        speeds = velocity[sources] if len(velocity) else np.full(len(sources), np.nan)
        if not np.isfinite(chosen).all() or (len(velocity) and not np.isfinite(speeds).all()):
            return self._refuse(
                "not_finite", f"joint state {dict(zip(names, position, strict=True))}"
            )
        if len(columns) and stamp_ns < int(self._joint_ns[columns].max()):
            return self._refuse(
                "out_of_order", f"joint state stamped {stamp_ns} ns after a newer one"
            )
        self._position[columns] = chosen
        self._velocity[columns] = speeds
        self._joint_ns[columns] = stamp_ns
        return True

    def put_pose(
        self,
        stamp_ns: int,
        body: str,
        frame: str,
        position: Sequence[float],
        quaternion: Sequence[float],
    ) -> bool:
        """Store the pose of a body in the base frame; return False where it is refused.

        Args:
            stamp_ns: when it was measured.
            body: whose pose.
            frame: has to be the robot's base frame.
            position: x, y, z in m.
            quaternion: x, y, z, w, of length 1.
        """
        if body not in self.body_names or stamp_ns < self._not_before_ns:
            return False
        if frame != self.base_frame:
            return self._refuse(
                "frame", f"pose of '{body}' in frame '{frame}', expected '{self.base_frame}'"
            )
        pose = np.array([*position, *quaternion], dtype=np.float64)
        if pose.shape != (7,) or not np.isfinite(pose).all():
            return self._refuse("not_finite", f"pose of '{body}' is {pose.tolist()}")
        if abs(float(np.linalg.norm(pose[3:])) - 1.0) > UNIT_TOLERANCE:
            return self._refuse("quaternion", f"quaternion of '{body}' is {pose[3:].tolist()}")
        held = self._poses.get(body)
        if held is not None and stamp_ns < held[0]:
            return self._refuse("out_of_order", f"pose of '{body}' stamped before a newer one")
        self._poses[body] = (stamp_ns, pose)
        return True

    # ---------------------------------------------------------------- output

    def aligned_ns(self) -> int | None:
        """Return the stamp that all inputs share, None while they do not."""
        stamp = int(self._joint_ns[0])
        if stamp < 0 or int(self._joint_ns.min()) != stamp or int(self._joint_ns.max()) != stamp:
            return None
        for body in self.body_names:
            held = self._poses.get(body)
            if held is None or held[0] != stamp:
                return None
        return stamp

    def read(self, now_ns: int, max_age_s: float | None = None) -> Reading | NotReady:
        """Return the scene as it is known now, or what keeps it from being known.

        Args:
            now_ns: the same clock as the stamps.
            max_age_s: overrules the contract's ages where given.
        """
        missing = self._missing()
        if missing:
            return NotReady("missing", f"no {', no '.join(missing)}")
        for need in self._needs:
            problem = self._check(need, now_ns, max_age_s)
            if problem is not None:
                return problem
        stamps = [stamp for stamp, _ in self._poses.values()]
        oldest = min(int(self._joint_ns.min()), *stamps) if stamps else int(self._joint_ns.min())
        newest = max(int(self._joint_ns.max()), *stamps) if stamps else int(self._joint_ns.max())
        return Reading(self._scene(), oldest, newest, (now_ns - oldest) / NANOSECONDS)

    def position(self, names: Sequence[str]) -> Array:
        """Return the last measured positions (len(names),); NaN where never measured."""
        return self._position[[self._columns[name] for name in names]]

    # ---------------------------------------------------------------- checks

    def _missing(self) -> list[str]:
        missing = [
            f"position of joint '{name}'"
            for name, stamp in zip(self.joint_names, self._joint_ns.tolist(), strict=True)
            if stamp < 0
        ]
        missing += [f"pose of '{body}'" for body in self.body_names if body not in self._poses]
        for need in self._needs:
            for name in need.velocities:
                column = self._columns[name]
                if self._joint_ns[column] >= 0 and np.isnan(self._velocity[column]):
                    missing.append(f"velocity of joint '{name}'")
        return missing

    def _check(self, need: _Need, now_ns: int, max_age_s: float | None) -> NotReady | None:
        limit = need.max_age_ns if max_age_s is None else int(max_age_s * NANOSECONDS)
        stamps = {
            f"joint '{name}'": int(self._joint_ns[self._columns[name]])
            for name in (*need.joints, *need.velocities)
        }
        stamps.update((f"pose of '{body}'", self._poses[body][0]) for body in need.bodies)
        if not stamps:
            return None
        oldest, newest = min(stamps, key=stamps.__getitem__), max(stamps, key=stamps.__getitem__)
        age, skew = now_ns - stamps[oldest], stamps[newest] - stamps[oldest]
        if age > limit:
            return NotReady("stale", f"{oldest} is {_ms(age)} ms old, at most {_ms(limit)} ms")
        if stamps[newest] - now_ns > limit:
            ahead = stamps[newest] - now_ns
            return NotReady("future", f"{newest} is stamped {_ms(ahead)} ms ahead of the clock")
        if skew > need.max_skew_ns:
            return NotReady(
                "skewed",
                f"{oldest} and {newest} are {_ms(skew)} ms apart, "
                f"at most {_ms(need.max_skew_ns)} ms",
            )
        return None

    def _scene(self) -> SceneState:
        return SceneState(
            self.joint_names,
            torch.from_numpy(self._position.copy()).unsqueeze(0),
            torch.from_numpy(np.nan_to_num(self._velocity)).unsqueeze(0),
            {name: torch.from_numpy(pose).unsqueeze(0) for name, (_, pose) in self._poses.items()},
        )

    def _order(self, names: tuple[str, ...]) -> tuple[list[int], list[int]] | None:
        """Return (columns here, columns there) of the needed joints; None where names repeat."""
        order = self._orders.get(names)
        if order is None:
            if len(set(names)) != len(names):
                return None
            sources = [i for i, name in enumerate(names) if name in self._columns]
            order = [self._columns[names[i]] for i in sources], sources
            if len(self._orders) < 64:  # a peer that keeps inventing names must not fill memory
                self._orders[names] = order
        return order

    def _refuse(self, kind: str, reason: str) -> bool:
        self.rejected[kind] += 1
        self.last_rejection = reason
        return False


def _need(field: ObservationField, arm_joints: Sequence[str]) -> _Need:
    source = field.source
    joints: tuple[str, ...] = ()
    velocities: tuple[str, ...] = ()
    bodies: tuple[str, ...] = ()
    if source.kind == "joint_position":
        joints = source.names
    elif source.kind == "joint_velocity":
        velocities = source.names
    elif source.kind == "command_error":
        joints = tuple(arm_joints)
    elif source.kind in ("position", "yaw"):
        named = [name for name in (*source.names, source.relative_to) if name]
        bodies = tuple(name for name in named if name != TIP)
        joints = tuple(arm_joints) if TIP in named else ()
    age, skew = int(field.max_age_s * NANOSECONDS), int(field.max_skew_s * NANOSECONDS)
    return _Need(joints, velocities, bodies, age, skew)


def _ms(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:.1f}"
