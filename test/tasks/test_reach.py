"""reach: what counts as a touch, what is drawn and seen, and that nothing but the image helps."""

import dataclasses

import pytest
import torch

from grpo_ros.randomness import Key
from grpo_ros.simulators.mujoco.renderer import rendering_problem
from grpo_ros.simulators.mujoco.simulator import MujocoSimulator
from grpo_ros.tasks.reach import START_HIGH, START_LOW, TOUCH_HEIGHT, Reach, ReachConfig
from grpo_ros.training.demonstrations import record
from grpo_ros.training.statistics import wilson_interval

needs_renderer = pytest.mark.skipif(bool(rendering_problem()), reason="nothing renders here")
UNSEEN = ReachConfig(cameras=())


def _keys(num, seed=0):
    return [Key(seed, 0, group) for group in range(num)]


@pytest.fixture(scope="module")
def task():
    return Reach()


def _touching(task, tip, marker=(0.5, 0.0)):
    """Return a scene with the tip at a place and the marker at another."""
    place = torch.tensor([tip], dtype=torch.float64)
    joints = task.arm_at(place, torch.zeros(1), 0.0)
    pose = torch.tensor([[*marker, 0.0, 0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    return dataclasses.replace(
        task.sample(_keys(1)), joint_position=joints, poses={"marker": pose}
    )


def test_a_touch_on_the_marker_is_success(task):
    outcome = task.outcome(_touching(task, (0.51, 0.01, 0.025)))
    assert outcome.success.item() and not outcome.failure.item() and outcome.score.item() == 1.0


@pytest.mark.parametrize("tip", [(0.516, 0.0, 0.025), (0.5, -0.016, 0.02), (0.4, 0.1, 0.02)])
def test_a_touch_beside_the_marker_ends_the_episode(task, tip):
    outcome = task.outcome(_touching(task, tip))
    assert not outcome.success.item() and outcome.failure.item() and outcome.score.item() < 1.0


@pytest.mark.parametrize("tip", [(0.5, 0.0, 0.035), (0.4, 0.1, 0.2)])
def test_a_tip_above_the_table_decides_nothing(task, tip):
    outcome = task.outcome(_touching(task, tip))
    assert not outcome.success.item() and not outcome.failure.item()


def test_score_and_potential_rise_towards_the_marker(task):
    scenes = [_touching(task, (x, 0.0, 0.1)) for x in (0.4, 0.45, 0.5)]
    for value in (lambda s: task.outcome(s).score, task.potential):
        far, nearer, above = (value(scene).item() for scene in scenes)
        assert far < nearer < above


def test_initial_states_are_in_reach_and_decide_nothing(task):
    scene = task.sample(_keys(300))
    assert (scene.position("marker")[:, :2] - torch.tensor([0.5, 0.0])).abs().max() <= 0.12
    tip = task.tip(scene)
    assert (tip > torch.tensor(START_LOW) - 1e-3).all()
    assert (tip < torch.tensor(START_HIGH) + 1e-3).all()
    outcome = task.outcome(scene)
    assert not outcome.success.any() and not outcome.failure.any()


def test_an_initial_state_depends_on_its_key_alone(task):
    keys = _keys(5)
    together = task.sample(keys)
    for row, key in enumerate(keys):
        alone = task.sample([key])
        assert torch.equal(alone.joint_position, together.joint_position[row : row + 1])
        assert torch.equal(alone.poses["marker"], together.poses["marker"][row : row + 1])


@pytest.mark.parametrize(
    ("settings", "noise"),
    [
        ({}, 0.0),
        ({}, 0.2),
        ({"action": "joint_delta"}, 0.0),
        ({"robot": "ur5e", "horizon": 30}, 0.0),
    ],
    ids=["plain", "noise", "joint_delta", "ur5e"],
)
def test_the_demonstrator_succeeds(demonstrated, settings, noise):
    task = Reach(dataclasses.replace(UNSEEN, **settings))
    assert demonstrated(task, noise) >= 0.98


def test_numbers_tell_nothing_of_the_marker():
    task = Reach(UNSEEN)
    simulator = MujocoSimulator(task, 2)
    scene = task.sample(_keys(1)).rows([0, 0])
    marker = scene.poses["marker"].clone()
    marker[1, :2] += 0.1
    obs = simulator.reset(dataclasses.replace(scene, poses={"marker": marker}))
    later = simulator.step(torch.full((2, 8, 4), 0.3)).obs
    simulator.close()
    assert set(obs) == {"tip_position", "command_error"}
    for name in obs:
        assert torch.equal(obs[name][0], obs[name][1])
        assert torch.equal(later[name][0], later[name][1])


@pytest.mark.parametrize("place", [(0.5, 0.0), (0.44, 0.07)])
def test_a_policy_that_does_not_see_succeeds_by_chance(place):
    """It touches one place, whatever is drawn; every place in the area is as good."""
    task = Reach(dataclasses.replace(UNSEEN, goal_radius_m=0.03))
    num = 800
    simulator = MujocoSimulator(task, num)
    scene = task.sample(_keys(num))
    simulator.reset(scene)
    there = scene.poses["marker"].clone()
    there[:, :2] = torch.tensor(place)
    for _ in range(task.horizon):
        imagined = dataclasses.replace(simulator.scene(), poses={"marker": there})
        action = task.demonstrate(imagined, simulator.controller_state())
        result = simulator.step(action.unsqueeze(1).float())
    simulator.close()
    assert result.terminated.all(), "the first touch did not decide"
    low, high = wilson_interval(int(result.outcome.sum()), num)
    assert low <= task.chance <= high
    assert task.chance == pytest.approx(0.0491, abs=1e-4)


def test_sweeping_over_the_table_ends_at_the_first_touch():
    task = Reach(UNSEEN)
    simulator = MujocoSimulator(task, 1)
    simulator.reset(_touching(task, (0.4, -0.1, 0.05), marker=(0.5, 0.1)))
    sweep = torch.zeros(1, 16, 4)
    sweep[..., 1], sweep[:, :4, 2] = 1.0, -1.0
    result = simulator.step(sweep)
    tip = task.tip(simulator.scene())
    simulator.close()
    assert result.terminated.item() and not result.outcome.item()
    assert tip[0, 2] < TOUCH_HEIGHT and tip[0, 1] < 0.05


@needs_renderer
def test_the_marker_is_seen_from_every_start_and_its_pixels_tell_where_it_is(task):
    num = 64
    simulator = MujocoSimulator(task, num)
    scene = task.sample(_keys(num))
    image = simulator.reset(scene)["top_image"].int()
    simulator.close()
    assert image.shape == (num, 64, 64, 3)
    red = ((image[..., 0] - image[..., 1:].amax(dim=-1)) > 80).double()
    assert red.sum(dim=(1, 2)).min() >= 20, "a marker is hidden or too small"
    at = torch.arange(64, dtype=torch.float64)
    middle = [(red.sum(dim=other) * at).sum(1) / red.sum(dim=(1, 2)) for other in (1, 2)]
    # A line through centres of pixels gives the place within a third of the radius.
    known = torch.stack([*middle, middle[1] ** 2, middle[0] * middle[1], torch.ones(num)], dim=1)
    place = scene.position("marker")[:, :2]
    fitted = known @ torch.linalg.lstsq(known, place).solution
    assert (fitted - place).abs().max() < 0.01


@needs_renderer
def test_demonstrations_hold_images_and_no_place_of_the_marker(task):
    simulator = MujocoSimulator(task, 4)
    data = record(simulator, episodes=3, action_noise=0.1, seed=1)
    simulator.close()
    assert data.episodes == data.attempts == 3 and data.chunk.shape[1:] == (8, 4)
    assert set(data.obs) == {"tip_position", "command_error", "top_image"}
    assert data.obs["top_image"].dtype == torch.uint8
