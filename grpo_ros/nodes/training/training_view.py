"""Training view: the first environment of the learner, as a robot's topics show it.

The node has the name `simulator_bridge`, as the one that serves a simulated robot has, so that
whatever watches one can watch the other. It lives in the learner's process, takes no commands, and
publishes in the trainer's thread, no more often than `rate_hz`.

Publishes:
    /clock (rosgraph_msgs/Clock): experience, the first environment's control periods added up. It
        never goes back, whatever is reset or restored.
    joint_states (sensor_msgs/JointState), tf, tf_static, robot_description (latched).
    objects/<name>/pose (geometry_msgs/PoseStamped): objects and goal, in the base frame.
    ~/markers (visualization_msgs/MarkerArray): the scene's primitives.
    ~/group_paths (visualization_msgs/MarkerArray, latched): where the members of the first groups
        went, from their common start, green where better than their group and red where worse; the
        last three iterations, the older the fainter; beside each start how many succeeded.
Parameters: `TrainingViewConfig`.

    ros2 run grpo_ros learner
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.clock import Clock as RosClock
from rclpy.clock import ClockType
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from grpo_ros import typed
from grpo_ros.nodes import messages, qos
from grpo_ros.nodes.body_markers import body_marker
from grpo_ros.nodes.link_transforms import LinkTransforms
from grpo_ros.nodes.parameters import read_parameters
from grpo_ros.nodes.training.path_markers import PathMarkers
from grpo_ros.tasks.base import Task
from grpo_ros.tasks.environment import EnvironmentTask
from grpo_ros.tasks.scene_state import SceneState
from grpo_ros.training.group_paths import GroupPaths
from grpo_ros.training.observer import TrainingObserver

IDLE_S = 1.0
"""After so long without news the clock is published again, for whoever came since."""


@dataclasses.dataclass(frozen=True)
class TrainingViewConfig:
    """Parameters of the training view."""

    rate_hz: float = typed.setting(
        20.0, "Publications per second of wall-clock time", unit="Hz", minimum=0.1, maximum=30.0
    )
    markers: bool = typed.setting(True, "Also publish the scene's primitives as markers")
    paths: bool = typed.setting(True, "Also publish where the members of groups went")


class TrainingView(Node, TrainingObserver):
    """See the module's docstring. `on_step` belongs to the trainer's thread.

    Args:
        kwargs: of rclpy.node.Node.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("simulator_bridge", **kwargs)
        self.config = read_parameters(self, TrainingViewConfig())
        self.wants_paths = self.config.paths
        self._task: Task | None = None
        self._experience_ns = 0
        self._last_s = 0.0
        self._clock_out = self.create_publisher(Clock, "/clock", qos.CLOCK)
        self._transforms_out = self.create_publisher(TFMessage, "/tf", qos.TF)
        self._static_out = self.create_publisher(TFMessage, "/tf_static", qos.LATCHED)
        self._description_out = self.create_publisher(String, "robot_description", qos.LATCHED)
        self._markers_out = self.create_publisher(MarkerArray, "~/markers", qos.STATE)
        self._paths_out = self.create_publisher(MarkerArray, "~/group_paths", qos.LATCHED)
        wall = RosClock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(IDLE_S, self._on_idle, clock=wall)

    def show(self, task: Task) -> None:
        """Take the task whose scenes will come, and describe its robot.

        An environment of a simulator's own has none that is known here: only the clock is shown.
        """
        if isinstance(task, EnvironmentTask):
            return
        robot = task.robot
        self._task = task
        self._links = LinkTransforms(robot.urdf, robot.urdf_path.name)
        self._path_markers = PathMarkers(robot.base_frame)
        self._shown = tuple(b for b in task.bodies() if b.motion != "static")
        self._joints_out = self.create_publisher(
            JointState, robot.interfaces.joint_states, qos.STATE
        )
        self._poses_out = {
            body.name: self.create_publisher(PoseStamped, f"objects/{body.name}/pose", qos.STATE)
            for body in self._shown
        }
        self._marker_messages = {
            body.name: body_marker(body, robot.base_frame) for body in task.bodies()
        }
        self._description_out.publish(String(data=robot.urdf))
        self._static_out.publish(
            TFMessage(transforms=[messages.transform(0, *t) for t in self._links.fixed()])
        )

    def on_step(self, scene: SceneState, period_s: float) -> None:
        """Count one control period of experience; publish if it is time to."""
        self._experience_ns += round(period_s * messages.NANOSECONDS)
        now_s = time.monotonic()
        if self._task is None or now_s - self._last_s < 1.0 / self.config.rate_hz:
            return
        self._last_s = now_s
        self._publish(scene, self._experience_ns)

    def on_groups(self, paths: GroupPaths) -> None:
        """Publish where the members of groups went."""
        if self._task is not None:
            self._paths_out.publish(self._path_markers.add(paths))

    def _publish(self, scene: SceneState, stamp: int) -> None:
        assert self._task is not None
        names, base = scene.joint_names, self._task.robot.base_frame
        position = scene.joint_position[0].numpy()
        self._clock_out.publish(Clock(clock=messages.to_time(stamp)))
        self._joints_out.publish(
            messages.joint_state(stamp, names, position, scene.joint_velocity[0].numpy())
        )
        moving = self._links.moving(names, position)
        time_stamp = messages.to_time(stamp)
        markers = MarkerArray()
        for name, marker in self._marker_messages.items():
            marker.header.stamp = time_stamp
            markers.markers.append(marker)
            if name not in self._poses_out:
                continue
            values = scene.poses[name][0].tolist()
            moving.append((base, name, values))
            pose = messages.pose(stamp, base, values)
            self._poses_out[name].publish(pose)
            marker.pose = pose.pose
        self._transforms_out.publish(
            TFMessage(transforms=[messages.transform(stamp, *t) for t in moving])
        )
        if self.config.markers:
            self._markers_out.publish(markers)

    def _on_idle(self) -> None:
        if time.monotonic() - self._last_s > IDLE_S:
            self._clock_out.publish(Clock(clock=messages.to_time(self._experience_ns)))
