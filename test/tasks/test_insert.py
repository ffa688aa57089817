"""insert: what counts as in the hole, what is hidden, and that the demonstrator does it."""

import dataclasses
import math

import pytest
import torch
from rotation_helpers import quaternion_from_yaw

from grpo_ros.randomness import Key
from grpo_ros.simulators.mujoco.simulator import MujocoSimulator
from grpo_ros.tasks.insert import PEG_HALF, WALLS, Insert, InsertConfig


def _keys(num):
    return [Key(0, 0, group) for group in range(num)]


@pytest.fixture(scope="module")
def task():
    return Insert()


def _scene(task, depth=0.036, lateral=0.0, turn=0.0, tilt=0.0):
    """Return a scene whose peg is in the hole, off by what is given."""
    scene = task.sample(_keys(1))
    mouth, yaw = task._mouth(scene)[0], task._hole_yaw(scene)
    half = 0.5 * tilt
    upright = quaternion_from_yaw(yaw + turn)[0]
    x, y, z, w = upright.tolist()
    # The tilt about the base's x axis comes after the turn about z.
    c, s = math.cos(half), math.sin(half)
    quaternion = [c * x + s * w, c * y - s * z, c * z + s * y, c * w - s * x]
    axis = torch.tensor([0.0, -math.sin(tilt), math.cos(tilt)], dtype=torch.float64)
    bottom = mouth + torch.tensor([lateral, 0.0, -depth], dtype=torch.float64)
    peg = torch.cat([bottom + 0.04 * axis, torch.tensor(quaternion, dtype=torch.float64)])
    tip = peg[None, :3] + torch.tensor([0.0, 0.0, 0.02])
    joints = task.arm_at(tip, yaw, PEG_HALF)
    return dataclasses.replace(
        scene, joint_position=joints, poses={**scene.poses, "peg": peg.unsqueeze(0)}
    )


def test_a_peg_that_is_deep_and_straight_is_success(task):
    outcome = task.outcome(_scene(task))
    assert outcome.success.item() and outcome.score.item() == 1.0 and not outcome.failure.item()
    assert task.outcome(_scene(task, turn=math.pi / 2)).success.item(), "a square has four sides"


@pytest.mark.parametrize(
    "change",
    [{"depth": 0.034}, {"lateral": 0.0026}, {"turn": 0.16}, {"tilt": 0.11}],
    ids=["34 mm deep", "2.6 mm aside", "turned", "tilted"],
)
def test_anything_less_is_not(task, change):
    outcome = task.outcome(_scene(task, **change))
    assert not outcome.success.item() and outcome.score.item() < 1.0


def test_a_peg_beside_the_socket_is_not_in_it(task):
    assert not task.outcome(_scene(task, lateral=0.06)).success.item()


def test_a_dropped_peg_ends_the_episode(task):
    scene = _scene(task, depth=-0.05)
    peg = scene.poses["peg"].clone()
    peg[:, 1] += 0.1
    dropped = dataclasses.replace(scene, poses={**scene.poses, "peg": peg})
    assert task.outcome(dropped).failure.item()


def test_score_and_potential_rise_on_the_way_in(task):
    places = [(-0.05, 0.08), (-0.05, 0.0), (0.01, 0.0), (0.03, 0.0)]
    scenes = [_scene(task, depth=depth, lateral=lateral) for depth, lateral in places]
    scores = [task.outcome(scene).score.item() for scene in scenes]
    potentials = [task.potential(scene).item() for scene in scenes]
    assert scores == sorted(scores) and len(set(scores)) == 4
    assert potentials == sorted(potentials) and len(set(potentials)) == 4


def test_the_walls_leave_the_clearance_that_is_asked_for():
    for clearance in (0.001, 0.0015):
        task = Insert(InsertConfig(clearance_m=clearance))
        scene = task.sample(_keys(20))
        sizes = {body.name: body.size for body in task.bodies()}
        for first, second in (WALLS[:2], WALLS[2:]):
            axis = 0 if first == WALLS[0] else 1
            gap = torch.linalg.vector_norm(scene.position(first) - scene.position(second), dim=-1)
            inner = gap - sizes[first][axis] - sizes[second][axis]
            expected = torch.full_like(inner, 2.0 * (PEG_HALF + clearance))
            torch.testing.assert_close(inner, expected)


def test_the_hidden_error_is_in_what_is_seen_and_nowhere_else():
    exact, wrong = Insert(), Insert(InsertConfig(pose_error_m=0.002))
    scenes = [task.sample(_keys(200)) for task in (exact, wrong)]
    # The mouth is where the walls are, whatever is said of the hole.
    seen = [scene.position("hole") - exact._mouth(scene) for scene in scenes]
    assert seen[0].abs().max() < 1e-12
    assert seen[1][:, 2].abs().max() < 1e-12
    assert 0.0009 < seen[1][:, :2].std() < 0.0014 and seen[1].abs().max() <= 0.002
    simulator = MujocoSimulator(wrong, 200)
    obs = simulator.reset(scenes[1])
    told = scenes[1].position("hole") - scenes[1].position("peg")
    assert torch.equal(obs["hole_from_peg"], told.float())
    assert not any(
        name.startswith("wall")
        for f in wrong.contract().observation
        for name in (*f.source.names, f.source.relative_to)
    )
    simulator.close()


def test_the_gripper_holds_the_peg_without_being_commanded(task):
    simulator = MujocoSimulator(task, 16)
    simulator.reset(task.sample(_keys(16)))
    assert task.contract().action_size == 4
    before = simulator.scene().position("peg") - task.tip(simulator.scene())
    for _ in range(30):
        simulator.step(torch.zeros(16, 1, 4))
    after = simulator.scene().position("peg") - task.tip(simulator.scene())
    # Soft contacts let it creep by less than 2 mm/s.
    assert (after - before).abs().max() < 0.003
    assert (simulator.controller_state()["gripper"] == 0.0).all()
    simulator.close()


def test_the_walls_are_solid_and_stand_where_each_episode_puts_them(task):
    """Pressed down beside the hole, the peg stays above; every environment has its own hole."""
    num = 16
    simulator = MujocoSimulator(task, num)
    scene = task.sample(_keys(num))
    offset = torch.tensor([PEG_HALF, 0.0, 0.0], dtype=torch.float64)
    above = task._mouth(scene) + offset + torch.tensor([0.0, 0.0, 0.07])
    yaw = task._hole_yaw(scene)
    joints = task.arm_at(above, yaw, PEG_HALF - 3e-4)
    peg = torch.cat([above - torch.tensor([0.0, 0.0, 0.02]), quaternion_from_yaw(yaw)], 1)
    simulator.reset(
        dataclasses.replace(scene, joint_position=joints, poses={**scene.poses, "peg": peg})
    )
    for _ in range(15):
        action = torch.zeros(num, 1, 4)
        action[..., 2] = -0.4
        result = simulator.step(action)
    after = simulator.scene()
    assert len(torch.unique(task._mouth(after)[:, 0])) == num
    assert not result.outcome.any()
    bottom = after.position("peg")[:, 2] - 0.04
    assert (bottom > 0.04).float().mean() > 0.9
    simulator.close()


@pytest.mark.parametrize(
    ("config", "noise"),
    [
        (InsertConfig(clearance_m=0.0015), 0.03),
        (InsertConfig(), 0.0),
        (InsertConfig(), 0.03),
        (InsertConfig(pose_error_m=0.002, horizon=80), 0.03),
        (InsertConfig(action="joint_delta"), 0.0),
    ],
    ids=["1.5 mm", "1 mm", "1 mm, noisy", "hidden error", "joint_delta"],
)
def test_the_demonstrator_succeeds(demonstrated, config, noise):
    assert demonstrated(Insert(config), noise) >= 0.97
