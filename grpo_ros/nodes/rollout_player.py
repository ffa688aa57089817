"""Rollout player: a rollout that failed, over and over, as the robot's topics show it.

It replays the rollout from its exact start, once, and then shows what it saw. Its node has the
name `simulator_bridge` and publishes what the training view does
(nodes/training/training_view.py), so that RViz and the browser show it as they show training.
`~/group_paths` are the ways of new rollouts of the run's newest policy from moments of the
rollout.

Parameters: `PlayerConfig`, and those of the training view.

    ros2 run grpo_ros rollout_player --ros-args -p run:=runs/latest -p rollout:=12/3/5
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rclpy.clock import Clock as RosClock
from rclpy.clock import ClockType

from grpo_ros import typed
from grpo_ros.errors import ReplayError
from grpo_ros.nodes.shared.parameters import read_parameters
from grpo_ros.nodes.shared.process import leave, spinning
from grpo_ros.nodes.training.training_view import TrainingView, TrainingViewConfig
from grpo_ros.tasks.scene_state import SceneState
from grpo_ros.training.failures.failure import FailureId
from grpo_ros.training.failures.of_run import ReplayedRun
from grpo_ros.training.group_paths import SHOWN


@dataclasses.dataclass(frozen=True)
class PlayerConfig:
    """Parameters of the rollout player."""

    run: str = typed.setting("runs/latest", "A run's folder")
    rollout: str = typed.setting(
        "", "iteration/group/member, or heldout/NUMBER; empty: the newest failure"
    )
    members: int = typed.setting(
        8, "New rollouts from each moment that is branched; 0: none", minimum=0, maximum=SHOWN
    )
    real_time_factor: float = typed.setting(
        1.0, "Experience over wall-clock time", minimum=0.01, maximum=100.0
    )
    hold_s: float = typed.setting(
        1.5, "How long it stands at its end", unit="s", minimum=0.0, maximum=60.0
    )


VIEW = TrainingViewConfig(rate_hz=30.0, image_rate_hz=10.0, maximum_share=1.0)
"""Defaults of the view: no training goes on beside it."""


class RolloutPlayer(TrainingView):
    """See the module's docstring."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(VIEW, **kwargs)
        self.player = read_parameters(self, PlayerConfig())
        self._scenes: Sequence[SceneState] = ()
        self._next = 0
        self._held_until_s = 0.0
        self._load()
        period_s = self._period_s / self.player.real_time_factor
        steady = RosClock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(period_s, self._play, clock=steady)

    @property
    def wants_paths(self) -> bool:
        """Whether the ways of new rollouts are published; whoever comes later gets them too."""
        return self.config.paths

    def _load(self) -> None:
        """Replay the rollout, and branch it where that is asked for."""
        config = self.player
        run = ReplayedRun(Path(config.run).expanduser())
        name = FailureId.parsed(config.rollout) if config.rollout else _newest(run)
        most_points = max(1, SHOWN // max(1, config.members))
        with run.opened(name, None, config.members, most_points) as opened:
            self.show(opened.simulator.task)
            again, self._period_s = opened.replayed, opened.period_s
            self._scenes = again.scenes
            exact = "bit for bit" if again.is_exact else "NOT bit for bit"
            self.get_logger().info(
                f"rollout {name} of {config.run}: {again.failure.num_steps} control periods, "
                f"score {again.score:.2f}, replayed {exact}"
            )
            if config.members and self.wants_paths:
                branches = opened.branch(seed=0, is_traced=True)
                if branches.paths is not None:
                    self.on_groups(branches.paths)

    def _play(self) -> None:
        """Show the next scene; from the beginning again some time after the last."""
        now_s = time.monotonic()
        if now_s < self._held_until_s:
            return
        scene = self._scenes[self._next]
        self.on_step(lambda: scene, self._period_s)
        self._next += 1
        if self._next == len(self._scenes):
            self._next, self._held_until_s = 0, now_s + self.player.hold_s


def _newest(run: ReplayedRun) -> FailureId:
    kept = run.store.failures()
    if not kept:
        raise ReplayError(f"{run.store.folder} keeps no failed rollout")
    return kept[0].id


def main(args: list[str] | None = None) -> int:
    """Show the rollout until interrupted; return the exit code."""
    with spinning(RolloutPlayer, args=args) as process:
        return process.wait()


if __name__ == "__main__":
    leave(main())
