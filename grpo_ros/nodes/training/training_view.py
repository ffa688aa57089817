"""Training view: the first environment of the learner, as a robot's topics show it.

The node has the name `simulator_bridge`, as the one that serves a simulated robot has, so that
whatever watches one can watch the other. It lives in the learner's process, takes no commands, and
publishes in the trainer's thread, no more often than its rates and for no more than
`maximum_share` of the time; what nobody subscribes to is not made.

Publishes:
    /clock (rosgraph_msgs/Clock): experience, the first environment's control periods added up. It
        never goes back, whatever is reset or restored.
    joint_states (sensor_msgs/JointState), where the robot has it; tf, tf_static,
    robot_description (latched).
    objects/<name>/pose (geometry_msgs/PoseStamped): objects and goal, in the base frame.
    ~/markers (visualization_msgs/MarkerArray, latched): the scene's primitives, and as a text
        whether the outcome holds, and did in the iteration before.
    ~/group_paths (visualization_msgs/MarkerArray, latched): where the members of the first groups
        went, from their common start, green where better than their group and red where worse; the
        last three that were shown, the older the fainter; beside each start how many succeeded.
    <camera>/image_raw (sensor_msgs/Image): the overview and the task's cameras, as in films.
Parameters: `TrainingViewConfig`.

    ros2 run grpo_ros learner
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
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
from grpo_ros.nodes.shared import messages, qos
from grpo_ros.nodes.shared.link_transforms import LinkTransforms
from grpo_ros.nodes.shared.parameters import read_parameters
from grpo_ros.nodes.shared.scene_markers import SceneMarkers
from grpo_ros.nodes.training.budget import Budget
from grpo_ros.nodes.training.path_markers import PathMarkers
from grpo_ros.nodes.training.watched_images import WatchedImages
from grpo_ros.robots.meshes import with_mesh_uris
from grpo_ros.tasks.base import Task
from grpo_ros.tasks.environment import EnvironmentTask
from grpo_ros.tasks.scene_state import SceneState
from grpo_ros.training.group_paths import GroupPaths
from grpo_ros.training.observer import Progress, TrainingObserver

IDLE_S = 1.0
"""After so long without news the clock is published again, for whoever came since."""
SHARES = {"scene": 0.5, "paths": 0.25, "images": 0.25}
"""Of `maximum_share`."""


@dataclasses.dataclass(frozen=True)
class TrainingViewConfig:
    """Parameters of the training view."""

    rate_hz: float = typed.setting(
        20.0, "Publications per second of wall-clock time", unit="Hz", minimum=0.1, maximum=30.0
    )
    markers: bool = typed.setting(True, "Also publish the scene's primitives as markers")
    paths: bool = typed.setting(True, "Also publish where the members of groups went")
    path_rate_hz: float = typed.setting(
        0.5, "Of these, per second of wall-clock time", unit="Hz", minimum=0.01, maximum=10.0
    )
    images: bool = typed.setting(True, "Also draw images, where somebody subscribes to them")
    image_rate_hz: float = typed.setting(
        2.0, "Of these, per second of wall-clock time", unit="Hz", minimum=0.01, maximum=30.0
    )
    maximum_share: float = typed.setting(
        0.02,
        "Of wall-clock time that all this takes of training; rates fall where it would be more",
        minimum=0.001,
        maximum=1.0,
    )


class TrainingView(Node, TrainingObserver):
    """See the module's docstring. `on_step` belongs to the trainer's thread.

    Args:
        defaults: of its parameters.
        kwargs: of rclpy.node.Node.
    """

    def __init__(self, defaults: TrainingViewConfig = TrainingViewConfig(), **kwargs: Any) -> None:
        super().__init__("simulator_bridge", **kwargs)
        self.config = config = read_parameters(self, defaults)
        shares = {name: config.maximum_share * share for name, share in SHARES.items()}
        self._scene_budget = Budget(config.rate_hz, shares["scene"])
        self._path_budget = Budget(config.path_rate_hz, shares["paths"])
        self._image_budget = Budget(config.image_rate_hz, shares["images"])
        self._task: Task | None = None
        self._images: WatchedImages | None = None
        self._latest: SceneState | None = None
        self._before = ""
        self._experience_ns = 0
        self._last_s = 0.0
        self._clock_out = self.create_publisher(Clock, "/clock", qos.CLOCK)
        self._transforms_out = self.create_publisher(TFMessage, "/tf", qos.TF)
        self._static_out = self.create_publisher(TFMessage, "/tf_static", qos.LATCHED)
        self._description_out = self.create_publisher(String, "robot_description", qos.LATCHED)
        self._markers_out = self.create_publisher(MarkerArray, "~/markers", qos.LATCHED)
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
        self._links = LinkTransforms(robot.urdf, robot.urdf_path.name)
        self._path_markers = PathMarkers(robot.base_frame)
        self._scene_markers = SceneMarkers(task.bodies(), robot.base_frame)
        topic = robot.interfaces.joint_states
        self._joints_out = self.create_publisher(JointState, topic, qos.STATE) if topic else None
        self._poses_out = {
            body.name: self.create_publisher(PoseStamped, f"objects/{body.name}/pose", qos.STATE)
            for body in task.bodies()
            if body.motion != "static"
        }
        if self.config.images:
            self._images = WatchedImages(self, task)
        still = [*self._links.fixed(), *(self._images.transforms() if self._images else ())]
        self._description_out.publish(String(data=with_mesh_uris(robot.urdf, robot.urdf_path)))
        self._static_out.publish(
            TFMessage(transforms=[messages.transform(0, *link) for link in still])
        )
        self._task = task

    def close(self) -> None:
        """Free what draws; call it in the trainer's thread."""
        if self._images is not None:
            self._images.close()

    @property
    def wants_paths(self) -> bool:
        """Whether somebody looks at groups, and it is time for the next ones."""
        return (
            self.config.paths
            and self._path_budget.is_due
            and self._paths_out.get_subscription_count() > 0
        )

    def on_step(self, scene: Callable[[], SceneState], period_s: float) -> None:
        """Count one control period of experience; publish what it is time for, if it is heard."""
        self._experience_ns += round(period_s * messages.NANOSECONDS)
        if self._task is None:
            return
        scene = functools.cache(scene)
        if self._is_drawn:
            self._latest = scene()
        if self._scene_budget.is_due:
            with self._scene_budget.spending():
                if self._is_heard:
                    self._publish(self._task, scene(), self._experience_ns)
        images = self._images
        if images is not None and self._image_budget.is_due and images.prepare():
            with self._image_budget.spending():
                images.publish(self._experience_ns, scene())

    def on_groups(self, paths: GroupPaths) -> None:
        """Publish where the members of groups went, unless only others want to know now."""
        if self._task is not None and self.wants_paths:
            with self._path_budget.spending():
                self._paths_out.publish(self._path_markers.add(paths))

    def on_iteration(self, metrics: Mapping[str, float], progress: Progress) -> None:
        """Remember how the watched episode ended: its last scene may not have been published."""
        if self._task is None or self._latest is None or not self._is_drawn:
            return
        has_succeeded = bool(self._task.outcome(self._latest).success[0])
        self._before = f"; the one before: {'success' if has_succeeded else 'failure'}"
        self._latest = None

    @property
    def _is_drawn(self) -> bool:
        return self.config.markers and self._markers_out.get_subscription_count() > 0

    @property
    def _is_heard(self) -> bool:
        outs = (self._clock_out, self._joints_out, self._transforms_out, *self._poses_out.values())
        return self._is_drawn or any(out.get_subscription_count() for out in outs if out)

    def _publish(self, task: Task, scene: SceneState, stamp: int) -> None:
        self._last_s = time.monotonic()
        names, base = scene.joint_names, task.robot.base_frame
        position = scene.joint_position[0].numpy()
        poses = {name: scene.poses[name][0].tolist() for name in self._poses_out}
        self._clock_out.publish(Clock(clock=messages.to_time(stamp)))
        if self._joints_out and self._joints_out.get_subscription_count():
            velocity = scene.joint_velocity[0].numpy()
            self._joints_out.publish(messages.joint_state(stamp, names, position, velocity))
        for name, publisher in self._poses_out.items():
            if publisher.get_subscription_count():
                publisher.publish(messages.pose(stamp, base, poses[name]))
        if self._transforms_out.get_subscription_count():
            moving = self._links.moving(names, position)
            moving += [(base, name, pose) for name, pose in poses.items()]
            self._transforms_out.publish(
                TFMessage(transforms=[messages.transform(stamp, *t) for t in moving])
            )
        if self._is_drawn:
            verdict = task.outcome(scene)
            has_succeeded = bool(verdict.success[0])
            is_open = not (has_succeeded or bool(verdict.failure[0]))
            text = "running" if is_open else "success" if has_succeeded else "failure"
            known = None if is_open else has_succeeded
            self._markers_out.publish(
                self._scene_markers.message(stamp, poses, text + self._before, known)
            )

    def _on_idle(self) -> None:
        if time.monotonic() - self._last_s > IDLE_S:
            self._clock_out.publish(Clock(clock=messages.to_time(self._experience_ns)))
