"""reach: touch a marker that only a camera sees."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from grpo_ros import typed
from grpo_ros.contract import ObservationField
from grpo_ros.observations import TIP
from grpo_ros.randomness import Key, generator
from grpo_ros.tasks.arm_task import TABLE, ArmTask, ArmTaskConfig, draw_place, pose
from grpo_ros.tasks.base import Body, Outcome
from grpo_ros.tasks.scene_state import SceneState

MARKER = "marker"
MARKER_RADIUS = 0.03
"""As it is drawn, m: 7 of 64 pixels across, whatever tolerance is asked for."""
TOUCH_HEIGHT = 0.03
"""Where the tip is at most this far above the table it touches it, m."""
TOUCH_DEPTH = 0.015
"""How high above the table the script leads the tip, m."""
START_LOW, START_HIGH = (0.34, -0.06, 0.24), (0.40, 0.06, 0.30)
"""Where the tip starts, m: seen from the camera `top`, the hand hides no marker from there."""


@dataclasses.dataclass(frozen=True)
class ReachConfig(ArmTaskConfig):
    """Settings of the reach task."""

    horizon: int = typed.setting(24, "Control periods per episode", minimum=1, maximum=10_000)
    chunk_size: int = typed.setting(8, "Actions per decision", minimum=1, maximum=64)
    cameras: tuple[str, ...] = typed.setting(
        ("top",), "Cameras whose images are observed: top, overview; none: the marker is not seen"
    )
    image_size: tuple[int, int] = typed.setting(
        (64, 64), "Width and height of observed images", unit="pixels", minimum=8
    )
    goal_radius_m: float = typed.setting(
        0.015, "Largest distance to the marker's centre", unit="m", minimum=1e-3
    )
    area_m: tuple[float, float] = typed.setting(
        (0.24, 0.24), "Extent in x and y of where the marker is drawn", unit="m", minimum=0.0
    )


class Reach(ArmTask):
    """Outcome: the first touch of the table is on the marker, within 15 mm of its centre.

    Numbers tell the policy where the tip is and what was commanded, the image alone where the
    marker is. The first touch decides, so nothing is gained by sweeping over the table.
    """

    Config = ReachConfig
    config: ReachConfig
    name = "reach"
    instruction = "Touch the red disc on the table."
    commands_gripper = False
    handles_objects = True

    @property
    def chance(self) -> float:
        """The success of the best policy that does not see the marker: its area / all area.

        Such a policy's first touch is independent of where the marker is drawn, uniformly; so no
        policy does better, and one that touches the middle of the area does as well.
        """
        extent_x, extent_y = self.config.area_m
        return math.pi * self.config.goal_radius_m**2 / (extent_x * extent_y)

    def bodies(self) -> Sequence[Body]:
        """Return table and marker."""
        return TABLE, Body(
            MARKER,
            "cylinder",
            (MARKER_RADIUS, 0.001),
            motion="kinematic",
            visual_only=True,
            colour=(0.9, 0.1, 0.1, 1.0),
        )

    def observation_fields(self) -> tuple[ObservationField, ...]:
        """Return the tip's position and how far the command is ahead of it."""
        fields = super().observation_fields()
        return tuple(field for field in fields if field.name != "tip_height")

    def object_fields(self) -> tuple[ObservationField, ...]:
        """Return where the tip is; nothing of the marker."""
        return (self.position_field("tip_position", TIP),)

    def sample(self, keys: Sequence[Key]) -> SceneState:
        """Draw the marker on the table, and the tip above the end of the area near the base."""
        marker = torch.empty(len(keys), 7, dtype=torch.float64)
        tip = torch.empty(len(keys), 3, dtype=torch.float64)
        for i, key in enumerate(keys):
            source = generator("reach/initial_state", key)
            marker[i] = pose((*draw_place(source, self.config.area_m), 0.0))
            tip[i] = torch.from_numpy(source.uniform(START_LOW, START_HIGH))
        return self.start(tip, torch.zeros(len(keys)), 0.0, {MARKER: marker})

    def outcome(self, scene: SceneState) -> Outcome:
        """Verify where the tip touches the table; a touch beside the marker fails."""
        tip = self.tip(scene)
        distance = self._distance(scene, tip)
        touches = tip[:, 2] < TOUCH_HEIGHT
        success = touches & (distance < self.config.goal_radius_m)
        near = torch.clamp(1.0 - distance / 0.3, 0.0, 1.0)
        score = torch.where(success, 1.0, 0.9 * near).float()
        return Outcome(success, touches & ~success, score)

    def potential(self, scene: SceneState) -> Tensor:
        """Return minus the tip's way to the marker, m."""
        way: Tensor = torch.linalg.vector_norm(scene.position(MARKER) - self.tip(scene), dim=-1)
        return -way

    def demonstrate_tip(self, scene: SceneState, controller_state: Mapping[str, Tensor]) -> Tensor:
        """Return the script's action: straight to the marker, and down no steeper than is safe.

        Within half the tolerance the tip goes down; farther away it stays above a cone of 45
        degrees that stands on it, so that noise does not make it touch beside the marker.
        """
        marker, commanded = scene.position(MARKER), controller_state["tip"]
        off = torch.maximum(
            self._distance(scene, self.tip(scene)), self._distance(scene, commanded)
        )
        wanted = marker.clone()
        wanted[:, 2] = TOUCH_DEPTH + (off - 0.5 * self.config.goal_radius_m).clamp(min=0.0)
        delta = (wanted - commanded) / self.config.step_m
        # All components are slowed down alike, so that the way is straight.
        delta = delta / delta.abs().amax(dim=1, keepdim=True).clamp(min=1.0)
        return torch.cat([delta, torch.zeros_like(delta[:, :1])], dim=-1)

    def _distance(self, scene: SceneState, tip: Tensor) -> Tensor:
        """Return the horizontal distance (N,) of a tip (N, 3) from the marker's centre, m."""
        offset = (tip - scene.position(MARKER))[:, :2]
        distance: Tensor = torch.linalg.vector_norm(offset, dim=-1)
        return distance
