"""Tell whether every ROS message that the package uses works under this numpy.

The classes are compiled against some numpy, and only converting a message shows whether it is
this one. Prints one line for each message that does not work; exits with 0 if only optional ones
are among them.
"""

import importlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any

REQUIRED = (
    "action_msgs.msg.GoalStatusArray",
    "builtin_interfaces.msg.Time",
    "control_msgs.action.FollowJointTrajectory.Goal",
    "control_msgs.action.GripperCommand.Goal",
    "diagnostic_msgs.msg.DiagnosticArray",
    "geometry_msgs.msg.PoseStamped",
    "geometry_msgs.msg.PoseWithCovarianceStamped",
    "geometry_msgs.msg.Twist",
    "geometry_msgs.msg.WrenchStamped",
    "lifecycle_msgs.srv.ChangeState.Request",
    "nav_msgs.msg.Odometry",
    "nav_msgs.msg.Path",
    "rosgraph_msgs.msg.Clock",
    "sensor_msgs.msg.CameraInfo",
    "sensor_msgs.msg.Image",
    "sensor_msgs.msg.JointState",
    "sensor_msgs.msg.LaserScan",
    "std_msgs.msg.Float32MultiArray",
    "std_msgs.msg.String",
    "std_srvs.srv.SetBool.Request",
    "std_srvs.srv.Trigger.Response",
    "tf2_msgs.msg.TFMessage",
    "trajectory_msgs.msg.JointTrajectory",
    "visualization_msgs.msg.MarkerArray",
)
REQUIRED_MODULES = (
    "launch",
    "launch_ros",
    "rclpy",
    "rclpy.lifecycle",
    "rclpy.action",
    "ros2cli",
    "tf2_ros",
)
OPTIONAL = {
    "simulation_interfaces.srv.ResetSimulation.Request": "no standard simulator services",
    "pal_statistics_msgs.msg.Statistics": "no metrics on a topic",
    "vision_msgs.msg.Detection3DArray": "no detections as observations",
    "isaac_ros_tensor_list_interfaces.msg.TensorList": "batches go as Float32MultiArray",
}


def find(name: str) -> Any:
    """Return the class called package.module.Class[.Inner], or raise ImportError."""
    package, module, *path = name.split(".")
    found: Any = importlib.import_module(f"{package}.{module}")
    for attribute in path:
        try:
            found = getattr(found, attribute)
        except AttributeError as error:
            raise ImportError(f"no {attribute} in {found.__name__}") from error
    return found


def fault_of(name: str) -> str | None:
    """Return why a message cannot go over the wire and back, None if it can."""
    from rclpy.serialization import deserialize_message, serialize_message

    try:
        kind = find(name)
        deserialize_message(serialize_message(kind()), kind)
    except Exception as error:  # whatever a foreign extension raises is the answer
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def faults(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each message that does not work, and why."""
    for name in names:
        fault = fault_of(name)
        if fault:
            yield name, fault


def main() -> int:
    """Print what does not work; return 0 if nothing that is required is missing."""
    for module in REQUIRED_MODULES:
        try:
            importlib.import_module(module)
        except ImportError as error:
            print(f"cannot import {module}: {str(error).splitlines()[0]}")
            return 1
    broken = list(faults(REQUIRED))
    for name, fault in broken:
        print(f"cannot use {name}: {fault}")
    for name, _ in faults(OPTIONAL):
        print(f"optional: this ROS 2 has no {name.split('.')[0]}: {OPTIONAL[name]}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
