"""What a robot.yaml says: the tree of settings, each with a unit and a range."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from grpo_ros import typed

DESCRIPTION_FILE = "robot.yaml"


@dataclasses.dataclass(frozen=True)
class JointDescription:
    """What the URDF does not say about an arm joint; rad or m and their derivatives."""

    home: float = typed.setting(description="Position at the start of an episode")
    acceleration: float = typed.setting(description="Largest acceleration", minimum=1e-3)
    jerk: float = typed.setting(description="Largest jerk", minimum=1e-3)
    stiffness: float = typed.setting(description="Servo gain in simulators", minimum=0.0)
    damping: float = typed.setting(description="Servo damping in simulators", minimum=0.0)
    armature: float = typed.setting(0.1, "Reflected inertia of the drive", minimum=0.0)


@dataclasses.dataclass(frozen=True)
class Gripper:
    """A gripper, driven by one joint that others follow.

    Its figures are in m and N where the driver joint slides, as that of a parallel gripper does;
    where it turns, as a one-finger jaw does, they are in rad and N m, whatever their names say.
    """

    joint: str = typed.setting(description="Driver joint")
    mimic_joints: tuple[str, ...] = typed.setting((), "Joints that follow the driver")
    open_position_m: float = typed.setting(0.0, "Driver joint when open", unit="m or rad")
    closed_position_m: float = typed.setting(0.0, "Driver joint when closed", unit="m or rad")
    max_effort_n: float = typed.setting(0.0, "Grasping force", unit="N or N m", minimum=1e-3)
    acceleration: float = typed.setting(5.0, "Acceleration", unit="m/s^2 or rad/s^2", minimum=1e-3)
    jerk: float = typed.setting(5000.0, "Jerk", unit="m/s^3 or rad/s^3", minimum=1e-3)
    stiffness: float = typed.setting(1000.0, "Servo gain in simulators", minimum=0.0)
    damping: float = typed.setting(50.0, "Servo damping in simulators", minimum=0.0)
    armature: float = typed.setting(0.05, "Reflected inertia", unit="kg or kg m^2", minimum=0.0)


ArmCommand = Literal[
    "trajectory_topic",
    "trajectory_action",
    "position_stream",
    "velocity_stream",
    "joint_command",
    "twist",
    "twist_stamped",
]
"""What carries the commands of an arm, or of a base.

trajectory_topic: JointTrajectory to a joint_trajectory_controller; trajectory_action: its
FollowJointTrajectory goals. position_stream, velocity_stream: Float64MultiArray to a forward
command controller. joint_command: JointState, as Isaac Sim's articulation controller and
topic_based_ros2_control take it. twist, twist_stamped: a base's velocity.
"""


@dataclasses.dataclass(frozen=True)
class Interfaces:
    """Relative names under which a driver of the robot offers its standard ROS interfaces."""

    joint_states: str = typed.setting("joint_states", "sensor_msgs/JointState topic; empty: none")
    arm_command: ArmCommand = typed.setting("trajectory_topic", "What carries the commands")
    arm_trajectory_topic: str = typed.setting("", "trajectory_msgs/JointTrajectory topic")
    arm_trajectory_action: str = typed.setting("", "FollowJointTrajectory action")
    arm_controller_state: str = typed.setting(
        "", "control_msgs/JointTrajectoryControllerState topic: what the controller is after"
    )
    arm_stream_topic: str = typed.setting(
        "", "std_msgs/Float64MultiArray topic of a forward command controller"
    )
    arm_joint_command: str = typed.setting("joint_command", "sensor_msgs/JointState topic")
    gripper_command: Literal["gripper_command", "parallel_gripper_command"] = typed.setting(
        "gripper_command", "Type of the gripper's action"
    )
    gripper_action: str = typed.setting("", "The gripper's action; empty if none")
    gripper_joint: str = typed.setting(
        "", "The gripper's joint in the driver's joint states; empty: as in the URDF"
    )
    gripper_open: float | None = typed.setting(
        None, "Where the driver says that the gripper is open; as the description does if absent"
    )
    gripper_closed: float | None = typed.setting(
        None, "Where the driver says that it is closed; as the description does if absent"
    )
    cmd_vel: str = typed.setting("cmd_vel", "Twist or TwistStamped topic of a base")
    odometry: str = typed.setting("odom", "nav_msgs/Odometry topic of a base")
    scan: str = typed.setting("scan", "sensor_msgs/LaserScan topic")


@dataclasses.dataclass(frozen=True)
class RobotMode:
    """A topic of the robot's driver that says whether the robot obeys."""

    topic: str = typed.setting(description="Relative name")
    type: str = typed.setting(description="Its type, e.g. std_msgs/msg/Bool")
    field: str = typed.setting("data", "Field of the message, dotted")
    accepted: tuple[str, ...] = typed.setting(("True",), "Values, as text, with which it obeys")
    latched: bool = typed.setting(
        True, "Published transient-local, on change only; false: again and again"
    )


@dataclasses.dataclass(frozen=True)
class ExternalTorque:
    """A topic that reports what the joints feel beyond gravity and motion."""

    topic: str = typed.setting(description="sensor_msgs/JointState topic; its effort is read")
    limit: Mapping[str, float] = typed.setting(description="Per joint, N m or N")


@dataclasses.dataclass(frozen=True)
class Safety:
    """Limits of the deployed robot beside those of its joints; 0 or absent: not watched."""

    tip_speed_m_s: float = typed.setting(0.0, "Largest speed of the tip", unit="m/s", minimum=0.0)
    workspace_margin_m: float = typed.setting(
        0.02, "How far the tip may be outside the workspace", unit="m", minimum=0.0
    )
    table_height_m: float | None = typed.setting(None, "Of the table, in the base frame", unit="m")
    table_clearance_m: float = typed.setting(
        0.01, "Links above the table; the gripper's are held by the workspace", unit="m"
    )
    tip_below_table_m: float = typed.setting(
        0.0, "How far below the table the tip may be led on its way to rest", unit="m", minimum=0.0
    )
    self_clearance_m: float = typed.setting(
        0.01, "Between links that are not neighbours", unit="m", minimum=0.0
    )
    manipulability: float = typed.setting(
        0.0, "Least Yoshikawa manipulability: distance from singular poses", minimum=0.0
    )
    tracking_error: float = typed.setting(
        0.0, "Largest distance of a joint from its command, rad or m", minimum=0.0
    )
    external_torque: ExternalTorque | None = typed.setting(None, "Where it is reported")  # noqa: RUF009
    robot_mode: RobotMode | None = typed.setting(None, "Where the driver reports it")  # noqa: RUF009
    stream_watchdog: str = typed.setting(
        "", "What stops the robot where a velocity stream ends, in the driver's words"
    )


@dataclasses.dataclass(frozen=True)
class RobotDescription:
    """The YAML of a robot."""

    name: str = typed.setting(description="Name of the robot")
    urdf: str = typed.setting(description="URDF file, relative to the YAML")
    base_frame: str = typed.setting(description="Link that is fixed to the world")
    tip_frame: str = typed.setting(description="Link that is moved")
    joints: Mapping[str, JointDescription] = typed.setting(
        description="Arm joints from base to tip"
    )
    gripper: Gripper | None = typed.setting(None, "If there is one")  # noqa: RUF009
    interfaces: Interfaces = typed.setting(factory=Interfaces, description="ROS names")  # noqa: RUF009
    workspace: Mapping[str, tuple[float, float]] = typed.setting(
        factory=dict, description="Bounds x, y, z of the tip in the base frame, in m"
    )
    velocity_scale: float = typed.setting(
        1.0, "Factor on the URDF's velocity limits", minimum=1e-3, maximum=1.0
    )
    position_margin: float = typed.setting(
        0.0, "How far arm joints keep from the URDF's position limits, rad or m", minimum=0.0
    )
    safety: Safety = typed.setting(factory=Safety, description="Limits when deployed")  # noqa: RUF009
    driver_package: str = typed.setting("", "ROS package that drives the real robot")
