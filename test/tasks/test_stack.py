"""stack: which levels count, what is drawn, and that the demonstrator builds the tower."""

import dataclasses

import pytest
import torch

from grpo_ros.randomness import Key
from grpo_ros.tasks.stack import SPACING, Stack, StackConfig

PLACES = {
    "blue_cube": (0.5, 0.1, 0.02),
    "red_cube": (0.5, 0.1, 0.06),
    "yellow_cube": (0.5, 0.1, 0.10),
}


@pytest.fixture(scope="module")
def task():
    return Stack(StackConfig(num_cubes=3))


def _keys(num):
    return [Key(0, 0, group) for group in range(num)]


def _scene(task, opening=0.04, tip=(0.5, 0.1, 0.1), moving="", **places):
    """Return a scene with a finished tower, but for the cubes that are put elsewhere."""
    scene = task.sample(_keys(1))
    poses, velocities = {}, {}
    for name in task.cubes:
        place = places.get(name, PLACES[name])
        poses[name] = torch.tensor([[*place, 0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
        velocities[name] = torch.zeros(1, 6, dtype=torch.float64)
        velocities[name][:, 0] = 0.06 if name == moving else 0.0
    position = torch.tensor([tip], dtype=torch.float64)
    joints = task.arm_at(position, torch.zeros(1, dtype=torch.float64), opening)
    return dataclasses.replace(scene, joint_position=joints, poses=poses, velocities=velocities)


def test_a_finished_tower_is_success_with_full_score(task):
    outcome = task.outcome(_scene(task))
    assert outcome.success.item() and outcome.score.item() == 1.0 and not outcome.failure.item()


@pytest.mark.parametrize(
    ("change", "score"),
    [
        ({"yellow_cube": (0.6, 0.1, 0.02)}, 0.5),
        ({"yellow_cube": (0.521, 0.1, 0.10)}, 0.5),
        ({"yellow_cube": (0.5, 0.1, 0.107)}, 0.5),
        ({"moving": "yellow_cube"}, 0.5),
        ({"opening": 0.02}, 0.5),
        ({"moving": "red_cube"}, 0.0),
        ({"red_cube": (0.4, 0.1, 0.02)}, 0.0),
        ({"blue_cube": (0.5, 0.1, 0.10), "yellow_cube": (0.5, 0.1, 0.02)}, 0.0),
    ],
    ids=[
        "third aside",
        "third 21 mm off",
        "third 7 mm too high",
        "third moving",
        "third gripped",
        "second moving",
        "second missing",
        "upside down",
    ],
)
def test_levels_count_from_the_ground_up(task, change, score):
    outcome = task.outcome(_scene(task, **change))
    assert not outcome.success.item() and outcome.score.item() == score


def test_a_level_still_stands_while_the_next_cube_is_carried(task):
    scene = _scene(task, opening=0.019, tip=(0.4, -0.1, 0.16), yellow_cube=(0.4, -0.1, 0.16))
    assert task.outcome(scene).score.item() == 0.5


def test_a_cube_that_fell_off_the_table_ends_the_episode(task):
    outcome = task.outcome(_scene(task, yellow_cube=(0.9, 0.1, -0.2)))
    assert outcome.failure.item() and not outcome.success.item()


def test_the_potential_rises_with_every_level(task):
    none = _scene(task, red_cube=(0.4, 0.2, 0.02), yellow_cube=(0.6, -0.2, 0.02))
    one = _scene(task, yellow_cube=(0.6, -0.2, 0.02))
    potentials = [task.potential(scene).item() for scene in (none, one, _scene(task))]
    assert potentials[0] < potentials[1] < potentials[2]


def test_initial_states_have_room_for_the_fingers_and_no_level(task):
    scene = task.sample(_keys(300))
    for i, first in enumerate(task.cubes):
        assert (scene.position(first)[:, 0] - 0.5).abs().max() <= 0.11
        assert scene.position(first)[:, 1].abs().max() <= 0.22
        for second in task.cubes[:i]:
            gap = (scene.position(first) - scene.position(second))[:, :2]
            assert torch.linalg.vector_norm(gap, dim=-1).min() >= SPACING
    assert (task.outcome(scene).score == 0.0).all()
    alone = task.sample(_keys(300)[7:8])
    assert torch.equal(alone.poses["red_cube"], scene.poses["red_cube"][7:8])


def test_the_instruction_names_the_order(task):
    assert (
        task.instruction
        == "Put the red cube on the blue one, then the yellow cube on the red one."
    )
    assert Stack().instruction == "Put the red cube on the blue one."


@pytest.mark.parametrize(
    ("config", "noise", "least"),
    [
        (StackConfig(), 0.0, 0.98),
        (StackConfig(), 0.1, 0.93),
        (StackConfig(num_cubes=3, horizon=150), 0.0, 0.94),
        (StackConfig(action="joint_delta"), 0.0, 0.95),
    ],
    ids=["two", "two, noisy", "three", "two, joint_delta"],
)
def test_the_demonstrator_builds_the_tower(demonstrated, config, noise, least):
    assert demonstrated(Stack(config), noise) >= least


def test_a_tower_whose_lowest_cube_is_held_in_the_air_does_not_stand(task):
    raised = {name: (x, y, z + 0.15) for name, (x, y, z) in PLACES.items()}
    away = {"tip": (0.5, 0.1, 0.6), "opening": 0.01}
    assert bool(task.outcome(_scene(task, **away)).success[0])
    held = _scene(task, **away, **raised)
    assert not bool(task.outcome(held).success[0]) and float(task.outcome(held).score[0]) == 0.0
    sliding = _scene(task, **away, moving="blue_cube")
    assert not bool(task.outcome(sliding).success[0])
    gripped = _scene(task, tip=PLACES["blue_cube"], opening=0.01)
    assert not bool(task.levels(gripped)[0, 0])
