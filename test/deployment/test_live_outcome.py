"""A task's predicate on what a robot observes: judged where that is enough, else said why not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from grpo_ros.deployment.records.live_outcome import LiveOutcome
from grpo_ros.randomness import Key
from grpo_ros.tasks.navigate import Navigate
from grpo_ros.tasks.pick_place import PickPlace
from grpo_ros.tasks.scene_state import SceneState

TASK = PickPlace()
PERIOD_NS = 50_000_000


def observed(cube: torch.Tensor) -> SceneState:
    """Return a scene as it is observed: poses, but no bodies' velocities."""
    scene = TASK.sample([Key(0, 0, 0)])
    return dataclasses.replace(scene, poses={**scene.poses, "cube": cube}, velocities={})


def on_goal() -> torch.Tensor:
    """Return the pose of a cube that lies on the goal."""
    scene = TASK.sample([Key(0, 0, 0)])
    cube = scene.poses["cube"].clone()
    cube[:, :2] = scene.poses["goal"][:, :2]
    return cube


def outcome(tmp_path: Path, bodies: tuple[str, ...] = ("cube", "goal")) -> LiveOutcome:
    return LiveOutcome(TASK.contract(), tmp_path, bodies)


def test_a_cube_that_rests_on_the_goal_is_a_success_once_its_rest_is_known(tmp_path: Path) -> None:
    judge = outcome(tmp_path)
    verdicts = [judge.judge(observed(on_goal()), i * PERIOD_NS) for i in range(4)]
    assert verdicts == [None, None, True, True]
    assert judge.verdict is True
    judge.forget()
    assert judge.verdict is None


def test_a_cube_that_passes_over_the_goal_is_none(tmp_path: Path) -> None:
    judge = outcome(tmp_path)
    verdicts = []
    for i in range(6):
        cube = on_goal()
        cube[:, 0] += 0.015 * (i - 5)  # 0.3 m/s, and on the goal in the end
        verdicts.append(judge.judge(observed(cube), i * PERIOD_NS))
    assert verdicts[2:] == [False] * 4


def test_a_predicate_that_needs_an_unobserved_body_is_not_judged(tmp_path: Path) -> None:
    judge = outcome(tmp_path, ("cube",))
    assert judge.unknown == "nobody observes goal"
    assert judge.judge(observed(on_goal()), 0) is None
    columns = LiveOutcome(Navigate().contract(), tmp_path, ("goal",))
    assert "column_0" in columns.unknown


def test_a_task_that_is_not_known_here_is_not_judged(tmp_path: Path) -> None:
    contract = dataclasses.replace(TASK.contract(), task="juggle")
    assert "juggle" in LiveOutcome(contract, tmp_path, ("cube", "goal")).unknown


def test_turning_counts_as_velocity_about_the_right_axis() -> None:
    from grpo_ros.deployment.records.live_outcome import _velocity

    before = torch.tensor([[0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    half = torch.tensor(0.05, dtype=torch.float64)
    after = torch.tensor([[0.2, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    after[0, 5], after[0, 6] = torch.sin(half), torch.cos(half)
    expected = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(_velocity(before, after, 0.1), expected)
    turned = torch.cat([after[:, :3], -after[:, 3:]], dim=1)  # the same turn
    torch.testing.assert_close(_velocity(before, turned, 0.1), expected)


@pytest.mark.parametrize("name", ["cube", "goal"])
def test_what_is_judged_is_what_the_task_itself_judges(tmp_path: Path, name: str) -> None:
    judge = outcome(tmp_path)
    scene = observed(on_goal())
    poses = dict(scene.poses)
    poses[name] = poses[name].clone()
    poses[name][:, 0] += 0.2
    moved = dataclasses.replace(scene, poses=poses)
    verdicts = [judge.judge(moved, i * PERIOD_NS) for i in range(3)]
    assert verdicts[-1] is False
