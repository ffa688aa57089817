"""Observation buffer: the latest stamped inputs, checked, as one SceneState and images.

Joint states arrive by name, in any order and in parts (an arm and a gripper may report apart), a
base's place as the positions of its joints; poses arrive by body, images by camera, scans by
sensor. Nothing malformed is stored. Stamps are integer nanoseconds of one clock; arrivals are
seconds of a clock that nobody sets.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from grpo_ros.contract import Contract
from grpo_ros.deployment.inputs.camera_images import ImageFits, Pixels
from grpo_ros.deployment.inputs.extrapolation import MovingPose, bring_joints
from grpo_ros.deployment.inputs.input_refusal import InputRefusal
from grpo_ros.deployment.inputs.input_stamps import InputStamps, NotReady, Rows
from grpo_ros.deployment.inputs.joint_table import JointTable
from grpo_ros.deployment.inputs.range_readings import clipped
from grpo_ros.deployment.inputs.required_inputs import NANOSECONDS, required_inputs
from grpo_ros.robots.robot import Robot
from grpo_ros.tasks.scene_state import SceneState

__all__ = ["NANOSECONDS", "NotReady", "ObservationBuffer", "Reading"]

Array = npt.NDArray[np.float64]
UNIT_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Reading:
    """One complete, fresh and aligned set of inputs.

    Attributes:
        scene: one row, float64, with the readings of sensors.
        scene_ns: when joints and bodies are like that: now, or the oldest input's stamp.
        oldest_ns: stamp of the oldest input. newest_ns: of the newest.
        age_s: age of the oldest input.
        images: field -> (1, H, W, 3) uint8, as the policy was trained on them.
    """

    scene: SceneState
    scene_ns: int
    oldest_ns: int
    newest_ns: int
    age_s: float
    images: Mapping[str, Pixels] = dataclasses.field(default_factory=dict)


class ObservationBuffer:
    """Holds the newest value of every input that a contract names.

    Args:
        contract: what is observed.
        robot: whose measured joints give the tip.
        extrapolates: whether joints and bodies are brought from their stamps to now.

    Attributes:
        inputs: all that is needed; `joint_names`, `body_names`, ... name its parts.
        rejected: kind of refusal -> how many. last_rejection: why the last one was refused.

    Raises:
        ContractError: an image or a scan of a form that no camera or laser is converted to.
    """

    def __init__(self, contract: Contract, robot: Robot, extrapolates: bool = False) -> None:
        self.base_frame, self.extrapolates = robot.base_frame, extrapolates
        inputs = self.inputs = required_inputs(contract, robot)
        self.input_names: tuple[str, ...] = inputs.names
        self.joint_names: tuple[str, ...] = inputs.joints
        self.body_names: tuple[str, ...] = inputs.bodies
        self.camera_names: tuple[str, ...] = inputs.cameras
        self.sensor_names: tuple[str, ...] = tuple(inputs.sensors)
        self.rejected: Counter[str] = Counter()
        self.last_rejection = ""
        self._stamps = InputStamps(inputs, round(contract.period_s * NANOSECONDS))
        self._joints = JointTable(inputs.joints)
        self._fits = ImageFits(inputs.images)
        self._rows = {name: np.array([row]) for row, name in enumerate(inputs.names)}
        self._speeds = self._joints.columns(inputs.velocities)
        limits = {limit.name: limit.velocity for limit in contract.limits}
        self._fastest = np.array([limits.get(name, np.inf) for name in inputs.joints])
        self.clear()

    def clear(self) -> None:
        """Forget every input, e.g. after the clock jumped back."""
        self._stamps.clear()
        self._joints.clear()
        self._poses: dict[str, MovingPose] = {}
        self._images: dict[str, Pixels] = {}
        self._ranges: dict[str, Array] = {}

    def forget_before(self, stamp_ns: int) -> None:
        """Forget inputs older than a stamp and refuse such inputs from now on."""
        self._stamps.forget_before(stamp_ns)
        gone = ~self._stamps.has_come[: len(self.joint_names)]
        self._joints.position[gone] = self._joints.velocity[gone] = np.nan
        self._poses = {name: p for name, p in self._poses.items() if p.stamp_ns >= stamp_ns}

    # ---------------------------------------------------------------- inputs

    def put_joint_state(
        self,
        stamp_ns: int,
        names: Sequence[str],
        position: Array,
        velocity: Array,
        arrival_s: float | None = None,
    ) -> bool:
        """Store the joints that are needed, by name; return False where the input is refused.

        Args:
            stamp_ns: when it was measured.
            names: J names in any order; joints that nothing needs are passed over.
            position: (J,) float64, rad or m.
            velocity: (J,) float64, or empty where it is not measured.
            arrival_s: when it came, on a steady clock.
        """
        try:
            columns, chosen, speeds = self._joints.match(tuple(names), position, velocity)
        except InputRefusal as refusal:
            return self.refuse(refusal.kind, f"joint state: {refusal}")
        if not len(columns) or not self._admits(stamp_ns, columns, "joint state"):
            return False
        self._joints.position[columns] = chosen
        self._joints.velocity[columns] = speeds
        self._stamps.note(stamp_ns, columns, arrival_s)
        return True

    def put_pose(
        self,
        stamp_ns: int,
        body: str,
        frame: str,
        position: Sequence[float],
        quaternion: Sequence[float],
        arrival_s: float | None = None,
    ) -> bool:
        """Store the pose of a body in the base frame; return False where it is refused.

        Args:
            stamp_ns: when it was measured.
            body: whose pose.
            frame: has to be the robot's base frame.
            position: x, y, z in m.
            quaternion: x, y, z, w, of length 1.
            arrival_s: when it came, on a steady clock.
        """
        if body not in self.body_names:
            return False
        try:
            pose = _checked_pose(frame, self.base_frame, [*position, *quaternion])
        except InputRefusal as refusal:
            return self.refuse(refusal.kind, f"pose of '{body}': {refusal}")
        held = self._poses.get(body)
        moving = MovingPose(stamp_ns, pose) if held is None else held.followed_by(stamp_ns, pose)
        return self._store(self._poses, body, moving, stamp_ns, f"pose of '{body}'", arrival_s)

    def put_image(
        self, stamp_ns: int, camera: str, image: Pixels, arrival_s: float | None = None
    ) -> bool:
        """Store the image of a camera; return False where it is refused.

        It is brought to the size that the policy was trained on when it is read; see `fit`.

        Args:
            stamp_ns: when it was taken.
            camera: whose image.
            image: (H, W, 3) uint8, red, green, blue; not smaller than in training.
            arrival_s: when it came, on a steady clock.
        """
        if camera not in self.camera_names:
            return False
        name = f"image of camera '{camera}'"
        try:
            self._fits.check(camera, image)
        except InputRefusal as refusal:
            return self.refuse(refusal.kind, f"{name}: {refusal}")
        return self._store(self._images, camera, image, stamp_ns, name, arrival_s)

    def put_reading(
        self, stamp_ns: int, sensor: str, ranges: Array, arrival_s: float | None = None
    ) -> bool:
        """Store what a laser measured; return False where it is refused.

        Readings are clipped to [0, the range in training]; inf is what met nothing, -inf what is
        too near. Where the contract has no statistics of the scan, both are refused.

        Args:
            stamp_ns: when it was measured.
            sensor: whose reading.
            ranges: (n,) float64, m, a beam each as in training; NaN is refused.
            arrival_s: when it came, on a steady clock.
        """
        if sensor not in self.sensor_names:
            return False
        name = f"scan '{sensor}'"
        try:
            read = clipped(ranges, self.inputs.sensors[sensor], self.inputs.ranges.get(sensor))
        except InputRefusal as refusal:
            return self.refuse(refusal.kind, f"{name}: {refusal}")
        return self._store(self._ranges, sensor, read, stamp_ns, name, arrival_s)

    def refuse(self, kind: str, reason: str) -> bool:
        """Count an input that is not taken, and keep why; return False."""
        self.rejected[kind] += 1
        self.last_rejection = reason
        return False

    # ---------------------------------------------------------------- output

    def aligned_ns(self) -> int | None:
        """Return the stamp that all inputs share, None while they do not."""
        oldest = self._stamps.oldest_ns
        return oldest if oldest == self._stamps.newest_ns and oldest >= 0 else None

    @property
    def newest_joint_ns(self) -> int:
        """The newest stamp of a joint, negative where there is none."""
        return self._stamps.newest_of(len(self.joint_names))

    def read(
        self, now_ns: int, max_age_s: float | None = None, steady_s: float | None = None
    ) -> Reading | NotReady:
        """Return the scene as it is known now, or what keeps it from being known.

        Args:
            now_ns: the same clock as the stamps. A stamp may be one control period ahead of it;
                what is further ahead is not used, and may be replaced by what is older.
            max_age_s: overrules the contract's ages where given.
            steady_s: now on the clock of arrivals. Where given, an input that has brought no new
                stamp for longer than its largest age is stale too, whatever its stamp says.
        """
        problem = self._stamps.problem(now_ns, max_age_s, steady_s)
        missing = self._missing()
        if missing:
            return NotReady("missing", f"no {', no '.join(missing)}")
        if problem is not None:
            return problem
        oldest, newest = self._stamps.oldest_ns, self._stamps.newest_ns
        age_s = (now_ns - oldest) / NANOSECONDS
        scene_ns = max(now_ns, newest) if self.extrapolates else oldest
        scene, images = self._scene(scene_ns), self._fits.fitted(self._images)
        return Reading(scene, scene_ns, oldest, newest, age_s, images)

    def ages(self, now_ns: int) -> dict[str, float]:
        """Return input -> seconds since its stamp, inf where it never came."""
        return self._stamps.ages(now_ns)

    def position(self, names: Sequence[str]) -> Array:
        """Return the last measured positions (len(names),); NaN where never measured."""
        return self._joints.position[self._joints.columns(names)]

    # ---------------------------------------------------------------- checks

    def _admits(self, stamp_ns: int, rows: Rows, what: str) -> bool:
        if self._stamps.is_forgotten(stamp_ns):
            return False
        if self._stamps.is_out_of_order(stamp_ns, rows):
            return self.refuse("out_of_order", f"{what} stamped {stamp_ns} ns after a newer one")
        return True

    def _store[T](
        self,
        held: dict[str, T],
        key: str,
        value: T,
        stamp_ns: int,
        name: str,
        arrival_s: float | None,
    ) -> bool:
        rows = self._rows[name]
        if not self._admits(stamp_ns, rows, name):
            return False
        held[key] = value
        self._stamps.note(stamp_ns, rows, arrival_s)
        return True

    def _missing(self) -> list[str]:
        num_joints, has_come = len(self.joint_names), self._stamps.has_come
        missing = [
            f"position of {name}" if row < num_joints else name
            for row, name in enumerate(self.input_names)
            if not has_come[row]
        ]
        missing += [
            f"velocity of joint '{self.joint_names[column]}'"
            for column in self._speeds
            if has_come[column] and np.isnan(self._joints.velocity[column])
        ]
        return missing

    # ---------------------------------------------------------------- conversion

    def _scene(self, scene_ns: int) -> SceneState:
        position, velocity = self._joints.position.copy(), self._joints.velocity
        poses = {name: moving.pose for name, moving in self._poses.items()}
        if self.extrapolates:
            ages_ns = self._stamps.ages_ns(scene_ns)[: len(position)]
            possible = np.clip(velocity, -self._fastest, self._fastest)  # one may be wrong
            position = bring_joints(position, possible, ages_ns)
            poses = {name: moving.at(scene_ns) for name, moving in self._poses.items()}
        return SceneState(
            self.joint_names,
            torch.from_numpy(position).unsqueeze(0),
            torch.from_numpy(np.nan_to_num(velocity)).unsqueeze(0),
            {name: torch.from_numpy(pose).unsqueeze(0) for name, pose in poses.items()},
            readings={
                name: torch.from_numpy(read).unsqueeze(0) for name, read in self._ranges.items()
            },
        )


def _checked_pose(frame: str, base_frame: str, values: Sequence[float]) -> Array:
    pose = np.array(values, dtype=np.float64)
    if frame != base_frame:
        raise InputRefusal("frame", f"it is in frame '{frame}'", expected=f"'{base_frame}'")
    if pose.shape != (7,) or not np.isfinite(pose).all():
        raise InputRefusal("not_finite", f"it is {pose.tolist()}", expected="7 finite numbers")
    if abs(float(np.linalg.norm(pose[3:])) - 1.0) > UNIT_TOLERANCE:
        raise InputRefusal(
            "quaternion", f"its quaternion is {pose[3:].tolist()}", expected="one of length 1"
        )
    return pose
