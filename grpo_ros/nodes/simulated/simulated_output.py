"""What a simulated robot publishes: clock, joints, base, objects, images, transforms, markers."""

from __future__ import annotations

import time
from typing import Any

from control_msgs.msg import JointTrajectoryControllerState
from geometry_msgs.msg import PoseStamped
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from grpo_ros.deployment.simulation.simulated_robot import SimulatedRobot
from grpo_ros.nodes.shared import messages, qos
from grpo_ros.nodes.shared.link_transforms import LinkTransforms
from grpo_ros.nodes.shared.scene_markers import SceneMarkers
from grpo_ros.nodes.simulated import controller_messages
from grpo_ros.nodes.simulated.base_output import BaseOutput
from grpo_ros.nodes.simulated.camera_output import CameraOutput
from grpo_ros.robots.meshes import with_mesh_uris


class SimulatedOutput:
    """The publishers of a node that drives a `SimulatedRobot`.

    Args:
        node: that publishes.
        sim: whose state it is.
        joint_rate_hz: of joints, controller and odometry; pose_rate_hz: of objects and scans; both
            of simulated time. transform_rate_hz: of wall-clock time; of markers as well.
        camera_rate_hz: of images, of simulated time.
        needs_images: whether a policy that is to be served sees them.

    Raises:
        SimulatorError: images are needed, and nothing renders here.
    """

    def __init__(
        self,
        node: Any,
        sim: SimulatedRobot,
        joint_rate_hz: float,
        pose_rate_hz: float,
        transform_rate_hz: float,
        camera_rate_hz: float,
        needs_images: bool = False,
    ) -> None:
        self.node, self.sim, self.robot = node, sim, sim.robot
        self._links = LinkTransforms(self.robot.urdf, self.robot.urdf_path.name)
        self._joints_every, self._poses_every = (
            self._every(joint_rate_hz),
            self._every(pose_rate_hz),
        )
        self._transform_period_s, self._last_transforms_s = 1.0 / transform_rate_hz, 0.0
        self._num_substeps = 0
        self._clock_out = node.create_publisher(Clock, "/clock", qos.CLOCK)
        interfaces = self.robot.interfaces
        self._joints_out = interfaces.joint_states and node.create_publisher(
            JointState, interfaces.joint_states, qos.STATE
        )
        self._controller_out = interfaces.arm_controller_state and node.create_publisher(
            JointTrajectoryControllerState, interfaces.arm_controller_state, qos.STATE
        )
        self._base = BaseOutput(node, sim)
        self._cameras = CameraOutput(node, sim, needs_images)
        self._images_every = self._every(camera_rate_hz)
        self._poses_out: dict[str, Any] = {}
        bodies = sim.simulator.task.bodies()
        self._markers = SceneMarkers(bodies, self.robot.base_frame)
        self._markers_out = node.create_publisher(MarkerArray, "~/markers", qos.LATCHED)
        self.follow_bodies()
        self._transforms_out = node.create_publisher(TFMessage, "/tf", qos.TF)
        self._static_out = node.create_publisher(TFMessage, "/tf_static", qos.LATCHED)
        self._description_out = node.create_publisher(String, "robot_description", qos.LATCHED)
        description = with_mesh_uris(self.robot.urdf, self.robot.urdf_path)
        self._description_out.publish(String(data=description))
        still = [*self._links.fixed(), *self._cameras.transforms()]
        fixed = [messages.transform(sim.time_ns, *link) for link in still]
        self._static_out.publish(TFMessage(transforms=fixed))

    def follow_bodies(self) -> None:
        """Have one pose topic for each body that can be elsewhere, and no other; draw all."""
        bodies = self.sim.simulator.task.bodies()
        self._markers.follow(bodies)
        names = [body.name for body in bodies if body.motion != "static"]
        for name in self._poses_out.keys() - set(names):
            self.node.destroy_publisher(self._poses_out.pop(name))
        for name in names:
            if name not in self._poses_out:
                self._poses_out[name] = self.node.create_publisher(
                    PoseStamped, f"objects/{name}/pose", qos.STATE
                )

    def publish_all(self) -> None:
        """Publish everything; what an answer needs comes first."""
        stamp = self.sim.time_ns
        self._cameras.publish(stamp)
        self._publish_poses(stamp)
        self._publish_joints(stamp)
        self._clock_out.publish(Clock(clock=messages.to_time(stamp)))
        self._publish_transforms(stamp)

    def publish_due(self) -> None:
        """After a physics step, publish what is due.

        The clock comes last, so that inputs are there before ticks.
        """
        stamp = self.sim.time_ns
        self._num_substeps += 1
        if self._num_substeps % self._images_every == 0:
            self._cameras.publish(stamp)
        if self._num_substeps % self._poses_every == 0:
            self._publish_poses(stamp)
        if self._num_substeps % self._joints_every == 0:
            self._publish_joints(stamp)
        self._publish_transforms(stamp)
        self._clock_out.publish(Clock(clock=messages.to_time(stamp)))

    def publish_markers(self) -> None:
        """Publish the scene as markers, with how the episode stands; whoever comes sees them."""
        sim = self.sim
        poses = {name: sim.scene.poses[name][0].tolist() for name in self._poses_out}
        text, has_succeeded = standing(sim)
        self._markers_out.publish(self._markers.message(sim.time_ns, poses, text, has_succeeded))

    def _every(self, rate_hz: float) -> int:
        return max(1, round(1e9 / rate_hz / self.sim.substep_ns))

    def _publish_joints(self, stamp: int) -> None:
        scene = self.sim.scene
        position, velocity = scene.joint_position[0].numpy(), scene.joint_velocity[0].numpy()
        if self._controller_out and not self.sim.arm.is_streaming:
            state = controller_messages.state(self.sim.arm.trajectories)
            self._controller_out.publish(state)
        self._base.publish_odometry(stamp)
        if self._joints_out:
            names, driver = list(scene.joint_names), self.robot.driver_gripper
            if driver is not None:
                names, position, velocity = driver.states_to_driver(names, position, velocity)
            self._joints_out.publish(messages.joint_state(stamp, names, position, velocity))

    def _publish_poses(self, stamp: int) -> None:
        frame, poses = self.robot.base_frame, self.sim.scene.poses
        for name, publisher in self._poses_out.items():
            publisher.publish(messages.pose(stamp, frame, poses[name][0].tolist()))
        self._base.publish_scans(stamp)

    def _publish_transforms(self, stamp: int) -> None:
        now_s = time.monotonic()
        if now_s - self._last_transforms_s < self._transform_period_s:
            return
        self._last_transforms_s = now_s
        scene, base = self.sim.scene, self.robot.base_frame
        moving = self._links.moving(scene.joint_names, scene.joint_position[0].numpy())
        moving += [(base, name, scene.poses[name][0].tolist()) for name in self._poses_out]
        self._transforms_out.publish(
            TFMessage(transforms=[messages.transform(stamp, *t) for t in moving])
        )
        if self._markers_out.get_subscription_count():
            self.publish_markers()


def standing(sim: SimulatedRobot) -> tuple[str, bool | None]:
    """Return how an episode stands, in words, and whether it has succeeded, once it has ended."""
    if sim.phase == "idle":
        return "", None
    result = sim.result
    if result is None or result.error:
        return f"episode {sim.episode}: {'running' if result is None else 'does not count'}", None
    verdict = "success" if result.success else f"failure, score {result.score:.2f}"
    return f"episode {sim.episode}: {verdict}", result.success
