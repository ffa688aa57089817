"""Setting the state of running environments, and going on with other bodies, in every engine."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from grpo_ros import rotations
from grpo_ros.errors import SimulatorError
from grpo_ros.simulators.batched import BatchedSimulator
from grpo_ros.simulators.registry import make_simulator
from grpo_ros.tasks.base import Body, Task
from grpo_ros.tasks.pick_place import PickPlace
from grpo_ros.tasks.scene_state import SceneState
from grpo_ros.tasks.with_bodies import WithBodies
from grpo_ros.training.evaluation import held_out_keys

NUM_ENVS = 2
BRICK = Body("brick", "box", (0.02, 0.03, 0.05), mass=0.2)
POST = Body("post", "cylinder", (0.02, 0.1), motion="kinematic")
TURNED = torch.tensor([0.5, 0.5, 0.5, 0.5], dtype=torch.float64)
TWIST = torch.tensor([0.1, 0.2, 0.3, 1.0, 2.0, 3.0], dtype=torch.float64)
ADDED = [
    (BRICK, (0.3, 0.4, 1.0, 0.0, 0.0, 0.0, 1.0)),
    (POST, (0.3, -0.5, 0.1, 0.0, 0.0, 0.0, 1.0)),
]


@pytest.fixture(scope="module", params=["mujoco", "isaaclab"])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[[Task], BatchedSimulator]]:
    """Return what makes an engine's simulator, one at a time."""
    if request.param == "isaaclab" and importlib.util.find_spec("isaaclab") is None:
        pytest.skip("isaaclab is not installed")
    opened: list[BatchedSimulator] = []

    def made(task: Task) -> BatchedSimulator:
        if opened:
            opened.pop().close()
        simulator = make_simulator(request.param, task, NUM_ENVS)
        assert isinstance(simulator, BatchedSimulator)
        opened.append(simulator)
        return simulator

    yield made
    opened.pop().close()


def test_a_running_scene_is_set_and_gains_and_loses_bodies(
    make: Callable[[Task], BatchedSimulator],
) -> None:
    """One test, since an engine that takes long to start is started only twice."""
    plain = make(PickPlace())
    keys = held_out_keys(NUM_ENVS)
    plain.reset(plain.task.sample(keys), None, keys)
    action = torch.zeros(NUM_ENVS, 3, plain.contract.action_size)
    action[..., 2], action[..., -1] = -0.5, -1.0
    plain.step(action)

    task = WithBodies(plain.task, ADDED)
    simulator = make(task)
    simulator.take_over(plain, task.poses(NUM_ENVS))
    check_nothing_jumped(plain, simulator)
    check_set_scene_changes_what_it_names(simulator)
    check_velocities_are_those_of_the_world(simulator)
    check_the_arm_is_moved_and_bad_names_are_refused(simulator)


def check_nothing_jumped(plain: BatchedSimulator, simulator: BatchedSimulator) -> None:
    """The arm stands where it stood, goes on to hold, and the counters count on."""
    before, after = plain.scene(), simulator.scene()
    assert (after.joint_position - before.joint_position).abs().max() < 1e-9
    assert (after.joint_velocity - before.joint_velocity).abs().max() < 1e-9
    for name, pose in before.poses.items():
        assert torch.equal(after.poses[name], pose), name
    assert torch.allclose(after.velocities["cube"], before.velocities["cube"], rtol=0, atol=1e-12)
    assert torch.equal(simulator.rows.step_count, plain.rows.step_count)
    assert torch.equal(simulator.rows.target, plain.rows.target)
    target = simulator.controller_state()["target"]
    for _ in range(20):
        simulator.step_substep(target)
    held = simulator.scene().joint_position - target
    assert held[:, :7].abs().max() < 0.02
    assert simulator.scene().position("brick")[:, 2].max() < 0.95  # it falls, the post does not
    assert torch.equal(simulator.scene().position("post"), after.position("post"))
    assert not simulator.check_outcome().terminated.any()


def check_set_scene_changes_what_it_names(simulator: BatchedSimulator) -> None:
    """Environment 1 gets another brick and post; environment 0 and all else stay."""
    before = simulator.scene()
    post = before.poses["post"][1:] + torch.tensor([0.1, 0, 0, 0, 0, 0, 0]).double()
    brick = torch.cat([torch.tensor([0.3, 0.4, 1.5]).double(), TURNED]).unsqueeze(0)
    change = of_bodies({"brick": brick, "post": post}, {"brick": TWIST.unsqueeze(0)})
    simulator.set_scene(change, [1])
    after = simulator.scene()
    assert torch.equal(after.joint_position, before.joint_position)
    for name, pose in before.poses.items():
        assert torch.equal(after.poses[name][0], pose[0]), name
    assert torch.equal(after.poses["cube"], before.poses["cube"])
    assert torch.allclose(after.poses["brick"][1], brick[0], atol=1e-6)
    assert torch.equal(after.poses["post"][1], post[0])
    assert torch.allclose(after.velocities["brick"][1], TWIST, atol=1e-6)


def check_velocities_are_those_of_the_world(simulator: BatchedSimulator) -> None:
    """A spinning body's velocity is the finite difference of its pose."""
    target = simulator.controller_state()["target"]
    before = simulator.scene()
    simulator.step_substep(target)
    after = simulator.scene()
    step_s = simulator.contract.period_s / simulator.num_substeps
    moved = (after.position("brick") - before.position("brick"))[1] / step_s
    turn = rotations.product(
        after.quaternion("brick"), rotations.conjugate(before.quaternion("brick"))
    )[1]
    turned = 2.0 * turn[:3] * torch.sign(turn[3]) / step_s
    velocity = after.velocities["brick"][1]
    assert torch.allclose(moved, velocity[:3], atol=2e-3)
    assert torch.allclose(turned, velocity[3:], atol=2e-2)
    assert torch.allclose(velocity[3:], TWIST[3:], atol=0.1)


def check_the_arm_is_moved_and_bad_names_are_refused(simulator: BatchedSimulator) -> None:
    """Joints are set by name, the mimicking finger with its driver."""
    driver = simulator.robot.gripper.joint
    position = torch.full((NUM_ENVS, 1), 0.011, dtype=torch.float64)
    scene = SceneState((driver,), position, torch.zeros_like(position), {})
    simulator.set_scene(scene)
    full = simulator.physics.full_scene(simulator.rows.physics)
    fingers = full.joints([driver, *simulator.robot.gripper.mimic_joints])
    assert torch.allclose(fingers, torch.full_like(fingers, 0.011))
    with pytest.raises(SimulatorError, match="did you mean 'brick'"):
        simulator.set_scene(of_bodies({"brik": torch.zeros(NUM_ENVS, 7)}, {}))
    table = simulator.scene().poses["table"] + 0.1
    with pytest.raises(SimulatorError, match="'table' is part of the world"):
        simulator.set_scene(of_bodies({"table": table}, {}))


def of_bodies(poses: dict[str, Tensor], velocities: dict[str, Tensor]) -> SceneState:
    """Return a scene that names no joints."""
    num = len(next(iter(poses.values())))
    nothing = torch.zeros(num, 0, dtype=torch.float64)
    return SceneState((), nothing, nothing, poses, velocities)


def test_a_task_with_bodies_starts_with_them_and_judges_without_them() -> None:
    task = WithBodies(PickPlace(), ADDED)
    keys = held_out_keys(3)
    scene, plain = task.sample(keys), task.task.sample(keys)
    assert set(scene.poses) - set(plain.poses) == {"brick", "post"}
    assert [body.name for body in task.bodies()][-2:] == ["brick", "post"]
    assert task.contract() == task.task.contract()
    outcome, expected = task.outcome(scene), task.task.outcome(plain)
    for field in dataclasses.fields(outcome):
        assert torch.equal(getattr(outcome, field.name), getattr(expected, field.name))


def test_a_grasp_outlives_a_change_of_simulators() -> None:
    """The mimicking finger is carried over too: its tie to the driver is soft."""
    task = PickPlace()
    held, other = (make_simulator("mujoco", task, NUM_ENVS) for _ in range(2))
    keys = held_out_keys(NUM_ENVS)
    held.reset(task.sample(keys), None, keys)
    for _ in range(24):
        action = task.demonstrate(held.scene(), held.controller_state())
        held.step(action.unsqueeze(1).float())
    assert held.scene().position("cube")[:, 2].min() > 0.04  # lifted
    full = held.physics.full_scene(held.rows.physics)
    fingers = [task.robot.gripper.joint, *task.robot.gripper.mimic_joints]
    assert full.joints(fingers).diff(dim=1).abs().max() > 1e-6
    other.take_over(held, {})
    for _ in range(10):
        for simulator in (held, other):
            action = task.demonstrate(simulator.scene(), simulator.controller_state())
            simulator.step(action.unsqueeze(1).float())
    first, second = held.scene(), other.scene()
    assert (first.joint_position - second.joint_position).abs().max() < 1e-8
    assert (first.poses["cube"] - second.poses["cube"]).abs().max() < 1e-8
    assert torch.equal(held.rows.step_count, other.rows.step_count)
    held.close()
    other.close()
