"""Whether the robot that is there is the one that the policy needs: topics, types, limits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from std_msgs.msg import String

from grpo_ros.contract import Contract, JointLimits
from grpo_ros.errors import ContractError, RobotError, StoppedError
from grpo_ros.nodes.shared import qos
from grpo_ros.robots.driver_gripper import DriverGripper
from grpo_ros.robots.robot import Robot
from grpo_ros.robots.urdf import Urdf, parse_urdf

POLL_S = 0.05
ROUNDING = 1e-6


class LiveRobot:
    """Looks at what runs now.

    Args:
        node: that looks.
        is_stopping: whether the process is to end; a wait ends with it.
    """

    def __init__(self, node: Any, is_stopping: Callable[[], bool] = lambda: False) -> None:
        self._node, self._is_stopping = node, is_stopping
        self._urdf = ""
        self._made = node.create_subscription(
            String, "robot_description", self._on_description, qos.LATCHED
        )

    def _on_description(self, message: String) -> None:
        self._urdf = message.data

    def wait_for(
        self,
        topics: Iterable[tuple[str, str]],
        command_problem: Callable[[], str],
        timeout_s: float,
        remedies: Mapping[str, str] | None = None,
    ) -> None:
        """Wait until every input is published with its type and the command is listened to.

        Args:
            topics: full name and type of each input.
            command_problem: says what keeps commands from reaching the robot.
            timeout_s: longest wait.
            remedies: of topics: what they are and what to do where nobody publishes them.

        Raises:
            ContractError: something is absent or of another type in the end; names all of it.
            StoppedError: the process is to end.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            problems = [*self._absent(topics, remedies or {}), *filter(None, [command_problem()])]
            if not problems:
                return
            if self._is_stopping():
                raise StoppedError(f"asked to stop while {'; '.join(problems)}")
            if time.monotonic() > deadline:
                raise ContractError(
                    f"the robot that is there does not fit: {'; '.join(problems)}",
                    expected=f"all of it within {timeout_s:g} s",
                    remedy="start the robot's driver and controllers first, or name their topics "
                    "in robot.yaml and in the parameters under inputs",
                )
            time.sleep(POLL_S)

    def check_description(self, contract: Contract, robot: Robot) -> None:
        """Compare the published robot_description, if there is one, with the contract's joints.

        Raises:
            ContractError: a joint is absent, of another kind, or has tighter limits; names all.
        """
        if not self._urdf:
            return
        differences = description_differences(self._urdf, contract, robot)
        if differences:
            raise ContractError(
                f"robot_description differs from what the policy may command: "
                f"{'; '.join(differences)}",
                expected="the joints of the policy's contract, with limits as wide or wider",
                remedy="publish the description that the policy was trained with, or train again",
            )

    def _absent(self, topics: Iterable[tuple[str, str]], remedies: Mapping[str, str]) -> list[str]:
        problems = []
        for topic, kind in topics:
            found = {info.topic_type for info in self._node.get_publishers_info_by_topic(topic)}
            if not found:
                remedy = f", {remedies[topic]}" if topic in remedies else ""
                problems.append(f"nobody publishes '{topic}' ({kind}){remedy}")
            elif kind not in found:
                problems.append(
                    f"'{topic}' is published as {', '.join(sorted(found))}, not {kind}"
                )
        return problems


def description_differences(text: str, contract: Contract, robot: Robot) -> list[str]:
    """Return how a URDF's joints differ from those that a contract commands.

    The joints of a base stand for where it is, and no URDF but ours has them. A gripper's joint
    may be there under the name that its driver gives it, or not at all: an arm's driver describes
    the arm, and the gripper's action is looked for anyway.
    """
    is_base = any(action.kind == "twist" for action in contract.action)
    virtual = robot.arm_joints if is_base else ()
    limits = [limit for limit in contract.limits if limit.name not in virtual]
    if not limits:
        return []
    try:
        live = parse_urdf(text, "robot_description")
        ours = parse_urdf(robot.urdf, robot.urdf_path.name)
    except RobotError as problem:
        return [str(problem)]
    differences = []
    names = {joint.name for joint in live.joints}
    gripper = robot.driver_gripper
    for limit in limits:
        if limit.name not in names:
            if gripper is not None and limit.name == gripper.joint:
                differences += _gripper_differences(live, limit, gripper)
            else:
                differences.append(f"no joint '{limit.name}'")
            continue
        joint, kind = live.joint(limit.name), ours.joint(limit.name).kind
        if joint.kind != kind:
            differences.append(f"joint '{limit.name}' is {joint.kind}, not {kind}")
        if limit.lower < joint.lower - ROUNDING or limit.upper > joint.upper + ROUNDING:
            differences.append(
                f"joint '{limit.name}' may go from {joint.lower} to {joint.upper}, the policy "
                f"from {limit.lower} to {limit.upper}"
            )
        if math.isfinite(joint.velocity) and limit.velocity > joint.velocity + ROUNDING:
            differences.append(
                f"joint '{limit.name}' may move at {joint.velocity}/s, the policy at "
                f"{limit.velocity}/s"
            )
    return differences


def _gripper_differences(live: Urdf, limit: JointLimits, gripper: DriverGripper) -> list[str]:
    """Compare the positions only: its kind is the driver's choice, and its speed is not ours."""
    name = gripper.driver_joint
    found = [joint for joint in live.joints if joint.name == name]
    if not found:
        return []
    ends = gripper.to_driver(limit.lower), gripper.to_driver(limit.upper)
    lower, upper = min(ends), max(ends)
    if lower < found[0].lower - ROUNDING or upper > found[0].upper + ROUNDING:
        return [
            f"joint '{name}' may go from {found[0].lower} to {found[0].upper}, the policy from "
            f"{lower} to {upper}"
        ]
    return []
