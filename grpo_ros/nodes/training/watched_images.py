"""Images of the watched environment: drawn in the trainer's thread, only where somebody looks."""

from __future__ import annotations

from typing import Any

from sensor_msgs.msg import Image

from grpo_ros.errors import SimulatorError
from grpo_ros.nodes.shared import qos
from grpo_ros.nodes.shared.link_transforms import Transform
from grpo_ros.nodes.simulated.camera_output import image, optical_frame
from grpo_ros.simulators.scene_renderer import SceneRenderer
from grpo_ros.tasks.base import Task
from grpo_ros.tasks.camera import OVERVIEW, overview
from grpo_ros.tasks.scene_state import SceneState


class WatchedImages:
    """Publishers of <camera>/image_raw: the overview, and the task's own cameras.

    The pictures are those of films, from the task's own description, whatever the engine: neither
    the simulator nor what the policy sees takes part. Nothing is made before somebody subscribes.

    Args:
        node: that publishes.
        task: whose scenes are seen.
    """

    def __init__(self, node: Any, task: Task) -> None:
        self._node, self._task = node, task
        known = {OVERVIEW: overview(task.bodies())}
        known |= {camera.name: camera for camera in task.cameras()}
        self._outs = [
            (camera, node.create_publisher(Image, f"{camera.name}/image_raw", qos.STATE))
            for camera in known.values()
        ]
        self._renderers: dict[str, SceneRenderer] = {}
        self._is_possible = True

    def transforms(self) -> list[Transform]:
        """Return where the cameras' optical frames are in the robot's base frame."""
        base = self._task.robot.base_frame
        return [
            (base, optical_frame(camera), [*camera.eye, *camera.optical_quaternion])
            for camera, _ in self._outs
        ]

    def prepare(self) -> bool:
        """Return whether somebody looks; make what draws for them, which takes 50 ms, once."""
        if not self._is_possible:
            return False
        wanted = [camera for camera, out in self._outs if out.get_subscription_count()]
        try:
            for camera in wanted:
                if camera.name not in self._renderers:
                    size = camera.width, camera.height
                    self._renderers[camera.name] = SceneRenderer(self._task, *size)
        except SimulatorError as problem:
            self._node.get_logger().warning(f"no images: {problem}")
            self._is_possible = False
        return self._is_possible and bool(wanted)

    def publish(self, stamp_ns: int, scene: SceneState) -> None:
        """Publish what the cameras see that somebody looks through, once they are prepared."""
        for camera, out in self._outs:
            if camera.name in self._renderers and out.get_subscription_count():
                pixels = self._renderers[camera.name].render(scene, camera.name)[0].numpy()
                out.publish(image(stamp_ns, camera, pixels))

    def close(self) -> None:
        """Free the renderers; idempotent."""
        while self._renderers:
            self._renderers.popitem()[1].close()
