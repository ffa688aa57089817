"""pick_place: what counts as done, what is drawn, and that the demonstrator does it."""

import dataclasses

import pytest
import torch

from grpo_ros import rotations
from grpo_ros.errors import ConfigurationError
from grpo_ros.randomness import Key
from grpo_ros.simulators.mujoco.simulator import MujocoSimulator
from grpo_ros.tasks.pick_place import PickPlace, PickPlaceConfig
from grpo_ros.training.demonstrations import record
from grpo_ros.training.evaluation import held_out_keys


def _keys(num, seed=0):
    return [Key(seed, 0, group) for group in range(num)]


@pytest.fixture(scope="module")
def task():
    return PickPlace()


def _placed(task, cube=(0.5, 0.1, 0.02), goal=(0.5, 0.1, 0.0), opening=0.04, speed=0.0):
    """Return a scene in which the cube is where it is put."""
    scene = task.sample(_keys(1))
    poses = {
        name: torch.tensor([[*position, 0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
        for name, position in (("cube", cube), ("goal", goal))
    }
    joints = scene.joint_position.clone()
    joints[:, -1] = opening
    velocity = torch.zeros(1, 6, dtype=torch.float64)
    velocity[:, 0] = speed
    return dataclasses.replace(
        scene, joint_position=joints, poses=poses, velocities={"cube": velocity}
    )


def test_a_released_resting_cube_on_the_goal_is_success(task):
    outcome = task.outcome(_placed(task))
    assert outcome.success.item() and outcome.score.item() == 1.0 and not outcome.failure.item()


@pytest.mark.parametrize(
    "change",
    [
        {"cube": (0.526, 0.1, 0.02)},
        {"cube": (0.5, 0.074, 0.02)},
        {"cube": (0.5, 0.1, 0.05)},
        {"speed": 0.06},
        {"opening": 0.02},
    ],
    ids=["26 mm off in x", "26 mm off in y", "lifted", "moving", "gripped"],
)
def test_anything_less_is_not_success(task, change):
    outcome = task.outcome(_placed(task, **change))
    assert not outcome.success.item() and outcome.score.item() < 1.0


def test_a_cube_that_fell_off_the_table_ends_the_episode(task):
    assert task.outcome(_placed(task, cube=(0.9, 0.1, -0.2))).failure.item()


def test_score_rises_towards_the_goal(task):
    scores = [task.outcome(_placed(task, cube=(x, 0.1, 0.02))).score.item() for x in (0.6, 0.55)]
    assert scores[0] < scores[1] < 1.0


def test_initial_states_are_on_the_table_apart_and_reachable(task):
    scene = task.sample(_keys(300))
    cube, goal = scene.position("cube"), scene.position("goal")
    assert (torch.linalg.vector_norm((cube - goal)[:, :2], dim=-1) >= 0.12).all()
    for position in (cube, goal):
        assert (position[:, 0] - 0.5).abs().max() <= 0.11
        assert position[:, 1].abs().max() <= 0.22
    assert not task.outcome(scene).success.any()
    tip, rotation = task.robot.chain.forward(scene.joints(task.robot.arm_joints))
    low, high = torch.tensor([0.42, -0.12, 0.14]), torch.tensor([0.58, 0.12, 0.26])
    assert (tip > low - 1e-3).all() and (tip < high + 1e-3).all()
    down = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
    assert torch.allclose(rotation[:, :, 2], down.expand(300, 3), atol=1e-3)
    for limit, value in zip(task.robot.limits, scene.joint_position.T, strict=True):
        assert (value >= limit.lower).all() and (value <= limit.upper).all()


def test_an_initial_state_depends_on_its_key_alone(task):
    keys = _keys(5)
    together = task.sample(keys)
    for row, key in enumerate(keys):
        alone = task.sample([key])
        assert torch.equal(alone.joint_position, together.joint_position[row : row + 1])
        assert torch.equal(alone.poses["cube"], together.poses["cube"][row : row + 1])


def test_held_out_and_training_states_never_meet(task):
    training = task.sample(_keys(200)).position("cube")
    held_out = task.sample(held_out_keys(200)).position("cube")
    assert len(torch.unique(torch.cat([training, held_out]), dim=0)) == 400


@pytest.mark.parametrize(
    ("action", "noise", "least"),
    [("cartesian_delta", 0.0, 0.98), ("cartesian_delta", 0.1, 0.95), ("joint_delta", 0.0, 0.98)],
)
def test_the_demonstrator_succeeds(demonstrated, action, noise, least):
    task = PickPlace(PickPlaceConfig(action=action))
    assert demonstrated(task, noise, episodes=256) >= least


@pytest.mark.parametrize("action", ["cartesian_delta", "joint_delta"])
def test_the_demonstrator_succeeds_on_a_ur5e(demonstrated, action):
    # Its acceleration limit is a third of the Franka's: it takes longer.
    task = PickPlace(PickPlaceConfig(robot="ur5e", horizon=80, action=action))
    assert demonstrated(task, episodes=32) >= 0.9


def test_an_arm_that_cannot_turn_its_hand_is_refused():
    with pytest.raises(
        ConfigurationError, match="'so101' has 5 arm joints and a gripper in rad.*6"
    ):
        PickPlace(PickPlaceConfig(robot="so101", action="joint_delta"))


def test_what_is_seen_is_what_the_contract_says(task):
    simulator = MujocoSimulator(task, 2)
    obs = simulator.reset(task.sample(_keys(2)))
    assert set(obs) == {field.name for field in simulator.contract.observation}
    simulator.close()


def test_demonstrations_are_windows_of_what_was_executed(task):
    simulator = MujocoSimulator(task, 8)
    data = record(simulator, episodes=3, action_noise=0.1, seed=1)
    simulator.close()
    assert data.episodes == 3 and data.chunk.shape[1:] == (4, 5)
    assert data.chunk.abs().max() <= 1.0
    # Consecutive samples of an episode overlap: step 1 of one is step 0 of the next.
    inside = data.weight[:-1, 1] > 0
    assert torch.equal(data.chunk[:-1, 1][inside], data.chunk[1:, 0][inside])
    assert (data.weight[:, 0] == 1.0).all()
    ends = (data.weight[:, 1] == 0).nonzero().flatten()
    assert len(ends) == 3


def test_shaped_rewards_have_the_sign_they_should(task):
    config = PickPlaceConfig(rewards=("outcome", "progress", "energy", "smoothness"))
    shaped = PickPlace(config)
    far, near = _placed(task, cube=(0.6, 0.1, 0.02)), _placed(task, cube=(0.52, 0.1, 0.02))
    action = torch.ones(1, 5, dtype=torch.float64)
    terms = shaped.reward_terms(far, near, action, shaped.outcome(near))
    assert terms["progress"].item() > 0 > terms["smoothness"].item()
    assert terms["energy"].item() == 0.0 and terms["outcome"].item() == 1.0
    back = shaped.reward_terms(near, far, action, shaped.outcome(far))
    assert back["progress"].item() == pytest.approx(-terms["progress"].item())


def test_unknown_rewards_and_actions_are_named():
    with pytest.raises(ConfigurationError, match="'progres'.*did you mean 'progress'"):
        PickPlace(PickPlaceConfig(rewards=("progres",)))
    with pytest.raises(ConfigurationError, match="'cartesian'"):
        PickPlace(PickPlaceConfig(action="cartesian")).contract()


def test_the_cube_yaw_is_seen_up_to_its_symmetry(task):
    simulator = MujocoSimulator(task, 2)
    scene = task.sample(_keys(1)).rows([0, 0])
    cube = scene.poses["cube"].clone()
    turned = rotations.yaw_of_quaternion(cube[1:, 3:]) + torch.pi / 2
    cube[1, 5:] = torch.tensor([torch.sin(turned / 2), torch.cos(turned / 2)])
    obs = simulator.reset(dataclasses.replace(scene, poses={**scene.poses, "cube": cube}))
    assert torch.allclose(*obs["cube_yaw_from_tip"], atol=1e-6)
    simulator.close()
