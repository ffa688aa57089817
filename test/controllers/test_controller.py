"""ActionController: reaches commanded poses, keeps limits, treats every row alone."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rotation_helpers import angle_between
from torch import Tensor

from grpo_ros import rotations
from grpo_ros.contract import ActionField, Contract, JointLimits
from grpo_ros.controllers import ActionController, interpolate, make_controller
from grpo_ros.controllers.interpolation import smooth
from grpo_ros.deployment.safety.course import Course
from grpo_ros.deployment.safety.gate import SafetyGate
from grpo_ros.errors import ContractError
from grpo_ros.robots import Robot

MakeContract = Callable[..., Contract]
CARTESIAN = ActionField("arm", "cartesian_delta", ("x", "y", "z", "yaw"), (0.03, 0.03, 0.03, 0.15))
GRIPPER = ActionField("gripper", "gripper", ("fr3_finger_joint1",), (1.0,))
ARM = tuple(f"fr3_joint{i}" for i in range(1, 8))
DELTA = ActionField("arm", "joint_delta", ARM, (0.05,) * 7)
POSITION = ActionField("arm", "joint_position", ARM, (3.2,) * 7)
ACTIONS = {"cartesian": CARTESIAN, "delta": DELTA, "position": POSITION}


@pytest.fixture(scope="module")
def controller(make_contract: MakeContract, robot: Robot) -> ActionController:
    return make_controller(make_contract(), robot)


def bounds(robot: Robot) -> Tensor:
    """Return the workspace's lower and upper corner (2, 3)."""
    return torch.tensor([robot.workspace[axis] for axis in "xyz"], dtype=torch.float64).T


def poses(robot: Robot, num: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return random tip positions (num, 3) and yaws (num, 1) in the workspace."""
    unit = torch.rand(num, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    low, high = bounds(robot)
    return low + (high - low) * unit[:, :3], 2.0 * (unit[:, 3:] - 0.5)


def drive(
    controller: ActionController, state: dict[str, Tensor], tip: Tensor, yaw: Tensor, periods: int
) -> dict[str, Tensor]:
    """Command the tip to a pose for some periods."""
    for _ in range(periods):
        action = torch.cat([(tip - state["tip"]) / 0.03, (yaw - state["yaw"]) / 0.15], dim=1)
        action = torch.cat([action, torch.ones_like(yaw)], dim=1)
        state = controller.step(state, action.clamp(-1.0, 1.0))
    return state


def test_the_tip_reaches_commanded_poses(controller: ActionController, robot: Robot) -> None:
    state = controller.reset(robot.home.repeat(64, 1))
    for seed in range(3):
        tip, yaw = poses(robot, 64, seed)
        state = drive(controller, state, tip, yaw, 70)
        position, rotation = robot.chain.forward(state["target"][:, :7])
        assert (position - tip).norm(dim=-1).max() < 1e-3
        tilt = angle_between(rotation, rotations.pointing_down(yaw[:, 0]))
        assert tilt.max() < math.radians(0.5)


def test_joints_stay_where_they_were_over_many_round_trips(
    controller: ActionController, robot: Robot
) -> None:
    tip, yaw = poses(robot, 4, 1)
    state = controller.reset(robot.home.repeat(4, 1))
    visits = []
    for _ in range(6):
        for goal, heading in ((tip, yaw), (tip.flip(0), yaw.flip(0))):
            state = drive(controller, state, goal, heading, 70)
        visits.append(state["target"])
    assert (visits[-1] - visits[-2]).abs().max() < 0.02


def test_a_zero_action_holds_still(controller: ActionController, robot: Robot) -> None:
    state = controller.reset(robot.home.repeat(3, 1))
    after = state
    for _ in range(20):
        after = controller.step(after, torch.zeros(3, 5))
    assert (after["target"] - state["target"]).abs().max() < 1e-9
    assert torch.equal(after["tip"], state["tip"])


def test_reset_commands_what_is_measured(controller: ActionController, robot: Robot) -> None:
    joints = robot.home.repeat(2, 1)
    joints[1, 7] = 0.01
    state = controller.reset(joints)
    position, rotation = robot.chain.forward(joints[:, :7])
    assert torch.equal(state["target"], joints) and torch.equal(state["tip"], position)
    assert not state["velocity"].any()
    torch.testing.assert_close(state["yaw"][:, 0], rotations.yaw_of_matrix(rotation))
    assert state["gripper"][:, 0].tolist() == [1.0, 0.25]
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    expected = {"target": (2, 8), "velocity": (2, 8), "tip": (2, 3), "yaw": (2, 1)}
    assert shapes == {**expected, "gripper": (2, 1)}
    assert {value.dtype for value in state.values()} == {torch.float64}


def test_a_gripper_without_action_stays_closed(make_contract: MakeContract, robot: Robot) -> None:
    controller = make_controller(make_contract(DELTA), robot)
    joints = robot.home.repeat(1, 1)
    joints[0, 7] = 0.012
    given = joints.clone()
    state = controller.reset(joints)
    assert torch.equal(joints, given), "what is measured is not changed"
    for _ in range(3):
        assert state["target"][0, 7] == 0.0 and state["gripper"][0, 0] == 0.0
        state = controller.step(state, torch.zeros(1, 7))


def test_the_gripper_opens_at_zero_and_above(controller: ActionController, robot: Robot) -> None:
    state = controller.reset(robot.home.repeat(4, 1))
    action = torch.zeros(4, 5)
    action[:, 4] = torch.tensor([0.0, 1.0, -1e-3, -1.0])
    state = controller.step(state, action)
    assert state["target"][:, 7].tolist() == [0.04, 0.04, 0.0, 0.0]
    assert state["gripper"][:, 0].tolist() == [1.0, 1.0, 0.0, 0.0]
    assert not state["velocity"][:, 7].any()


def test_the_commanded_tip_stays_in_the_workspace_and_on_its_leash(
    controller: ActionController, robot: Robot
) -> None:
    (tip, yaw), (low, high) = poses(robot, 64), bounds(robot)
    state = drive(controller, controller.reset(robot.home.repeat(64, 1)), tip, yaw, 60)
    generator = torch.Generator().manual_seed(1)
    for _ in range(15):
        action = torch.rand(64, 5, generator=generator).mul(2).sub(1).sign()
        for _ in range(8):
            before = robot.chain.forward(state["target"][:, :7])
            state = controller.step(state, action)
            assert ((state["tip"] - before[0]).abs() <= 0.06 + 1e-12).all()
            ahead = state["yaw"][:, 0] - rotations.yaw_of_matrix(before[1])
            ahead = ahead - 2 * math.pi * torch.round(ahead / (2 * math.pi))
            assert (ahead.abs() <= 0.30 + 1e-9).all()
            assert ((state["tip"] >= low) & (state["tip"] <= high)).all()


def test_the_hand_stays_upright_and_near_the_workspace_under_wild_actions(
    controller: ActionController, robot: Robot
) -> None:
    # Regression: limiting each joint by itself led the tip 0.3 m astray and tilted it by 87 deg.
    (tip, yaw), (low, high) = poses(robot, 64), bounds(robot)
    state = drive(controller, controller.reset(robot.home.repeat(64, 1)), tip, yaw, 60)
    generator = torch.Generator().manual_seed(1)
    outside, upright = [], []
    for t in range(120):
        if t % 4 == 0:
            action = torch.rand(64, 5, generator=generator).mul(2).sub(1).sign()
        state = controller.step(state, action)
        position, rotation = robot.chain.forward(state["target"][:, :7])
        outside.append(torch.maximum(low - position, position - high).amax(dim=-1))
        upright.append(-rotation[:, 2, 2])
    assert torch.cat(outside).max() < 0.1
    assert torch.cat(upright).quantile(0.01) > math.cos(math.radians(8.0))


def test_a_tip_outside_the_workspace_is_not_pulled_in(
    make_contract: MakeContract, robot: Robot
) -> None:
    workspace = {**robot.workspace, "z": (0.005, 0.3)}
    controller = make_controller(make_contract(workspace=workspace), robot)
    state = controller.reset(robot.home[None])
    assert state["tip"][0, 2] > 0.3
    assert torch.equal(controller.step(state, torch.zeros(1, 5))["tip"], state["tip"])
    up = torch.tensor([[0.0, 0.0, 1.0, 0.0, 1.0]])
    assert torch.equal(controller.step(state, up)["tip"], state["tip"])
    assert (controller.step(state, -up)["tip"] < state["tip"] + 1e-12).all()


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(ACTIONS)), st.integers(0, 2**31), st.integers(1, 40))
def test_no_action_sequence_breaks_a_limit(
    make_contract: MakeContract, robot: Robot, kind: str, seed: int, hold: int
) -> None:
    controller = make_controller(make_contract(ACTIONS[kind], GRIPPER), robot)
    generator = torch.Generator().manual_seed(seed)
    lower, upper, velocity, acceleration = (
        torch.tensor([getattr(limit, key) for limit in robot.limits[:7]], dtype=torch.float64)
        for key in ("lower", "upper", "velocity", "acceleration")
    )
    state = controller.reset(robot.home.repeat(8, 1))
    for t in range(60):
        if t % hold == 0:
            action = 20.0 * torch.randn(8, controller.action_size, generator=generator)
        after = controller.step(state, action)
        joints, speed = after["target"][:, :7], after["velocity"][:, :7]
        assert ((joints >= lower) & (joints <= upper)).all()
        assert (speed.abs() <= velocity + 1e-9).all()
        change = (speed - state["velocity"][:, :7]).abs()
        assert (change <= acceleration * 0.05 + 1e-9).all()
        moved = (joints - state["target"][:, :7]) / 0.05
        torch.testing.assert_close(moved, speed, atol=1e-7, rtol=0)
        state = after


@pytest.mark.parametrize("kind", sorted(ACTIONS))
def test_rows_have_the_same_bits_in_any_batch(
    make_contract: MakeContract, robot: Robot, kind: str
) -> None:
    controller = make_controller(make_contract(ACTIONS[kind], GRIPPER), robot)
    generator = torch.Generator().manual_seed(0)
    tip, yaw = poses(robot, 256)
    joints = robot.home.repeat(256, 1)
    joints[:, :7] += 0.2 * torch.randn(256, 7, generator=generator, dtype=torch.float64)
    actions = torch.randn(12, 256, controller.action_size, generator=generator)
    whole = controller.reset(joints)
    parts = [
        slice(0, 256),
        slice(17, 18),
        slice(3, 5),
        slice(60, 63),
        slice(7, 14),
        slice(64, 128),
    ]
    alone = {(part.start, part.stop): controller.reset(joints[part]) for part in parts}
    for t in range(12):
        whole = controller.step(whole, actions[t])
        for part in parts:
            key = (part.start, part.stop)
            alone[key] = controller.step(alone[key], actions[t][part])
            for name, value in whole.items():
                assert torch.equal(value[part], alone[key][name]), (name, key, t)


def test_step_leaves_its_arguments_alone(controller: ActionController, robot: Robot) -> None:
    state = controller.reset(robot.home.repeat(2, 1))
    copies = {name: value.clone() for name, value in state.items()}
    action = torch.full((2, 5), 3.0)
    controller.step(state, action)
    assert all(torch.equal(state[name], copies[name]) for name in state)
    assert (action == 3.0).all()


def test_joint_positions_are_reached(make_contract: MakeContract, robot: Robot) -> None:
    controller = make_controller(make_contract(POSITION, GRIPPER), robot)
    goal = robot.home[:7] + 0.3
    action = torch.cat([goal / 3.2, torch.zeros(1).double()])[None]
    state = controller.reset(robot.home[None])
    for _ in range(30):
        state = controller.step(state, action)
    torch.testing.assert_close(state["target"][0, :7], goal, atol=1e-9, rtol=0)
    torch.testing.assert_close(state["tip"], robot.chain.forward(state["target"][:, :7])[0])


def test_joint_deltas_move_the_named_joints_alone(
    make_contract: MakeContract, robot: Robot
) -> None:
    field = ActionField("arm", "joint_delta", ("fr3_joint7", "fr3_joint2"), (0.02, 0.01))
    controller = make_controller(make_contract(field), robot)
    state = controller.reset(robot.home[None])
    for _ in range(10):
        state = controller.step(state, torch.tensor([[1.0, -1.0]]))
    moved = (state["target"][0] - robot.home)[:7]
    expected = torch.tensor([0, -0.1, 0, 0, 0, 0, 0.2], dtype=torch.float64)
    torch.testing.assert_close(moved, expected, atol=1e-12, rtol=0)


def test_interpolation_is_linear_and_the_gripper_steps_at_once(
    controller: ActionController,
) -> None:
    before = torch.zeros(2, 8, dtype=torch.float64)
    after = torch.arange(16, dtype=torch.float64).reshape(2, 8) / 7.0
    targets = interpolate(before, after, 5)
    assert targets.shape == (2, 5, 8)
    assert torch.equal(targets[:, -1], after)
    torch.testing.assert_close(targets[:, 1, :7], 0.4 * after[:, :7])
    assert torch.equal(targets[:, 0, 7], after[:, 7])
    states = {"target": before}, {"target": after}
    assert torch.equal(targets, controller.interpolate(*states, 5))
    assert torch.equal(interpolate(before[1:], after[1:], 5)[0], targets[1])
    assert not torch.equal(interpolate(before, after, 5, None)[:, 0, 7], after[:, 7])


FAST = JointLimits("a", -9.0, 9.0, 9.0, 100.0, 1e9, 1.0)


def test_smooth_motion_is_the_deployed_curve_but_for_the_ramp_of_acceleration() -> None:
    period_s, num = 0.05, 10
    gate = SafetyGate([FAST], period_s)
    gate.open(np.zeros(1))
    targets = np.cumsum(np.random.default_rng(0).uniform(-0.05, 0.05, (12, 1)), axis=0)
    before, velocity = torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.float64)
    for target in targets:
        curve = gate.admit(("a",), target[None]).curve
        now = torch.from_numpy(target)[None]
        found = smooth(before, velocity, now, period_s, num, None, lead=0.0)
        expected = [curve.sample((i + 1) * period_s / num)[0] for i in range(num)]
        np.testing.assert_allclose(found[0].numpy(), np.array(expected), atol=6e-4)
        velocity, before = (now - before) / period_s, now


def test_smooth_motion_is_what_is_sent_at_every_substep() -> None:
    """Through gate and course, as the policy server sends it tick by tick."""
    period_s, num, gate, course = 0.05, 5, SafetyGate([FAST], 0.05), Course(0.05)
    gate.open(np.zeros(1))
    targets = np.cumsum(np.random.default_rng(0).uniform(-0.05, 0.05, (12, 1)), axis=0)
    before, velocity = torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.float64)
    for tick, target in enumerate(targets, start=20):
        curve = gate.admit(("a",), target[None]).curve
        assert curve is not None
        sent = course.lay(curve, tick * 50_000_000)
        now = torch.from_numpy(target)[None]
        found = smooth(before, velocity, now, period_s, num, None)
        expected = [sent.sample((i + 1) * period_s / num)[0] for i in range(num)]
        np.testing.assert_allclose(found[0].numpy(), np.array(expected), atol=6e-4)
        velocity, before = (now - before) / period_s, now


@pytest.mark.parametrize("num", [5, 20])
def test_smooth_motion_begins_a_lead_late(num: int) -> None:
    random = np.random.default_rng(1)
    before, velocity, target = torch.from_numpy(random.uniform(-0.1, 0.1, (3, 2, 7)))
    at_once = smooth(before, velocity, target, 0.05, num, None, lead=0.0)
    late = smooth(before, velocity, target, 0.05, num, None, lead=0.2)
    first = num // 5
    torch.testing.assert_close(late[:, first:], at_once[:, :-first])
    begin = before - 0.5 * 0.05 * velocity
    torch.testing.assert_close(late[:, first - 1], begin)
    towards = late[:, 0] + velocity * 0.05 * (0.2 - 1.0 / num)
    torch.testing.assert_close(towards, begin)


def with_limit(contract: Contract, index: int, **changes: float) -> Contract:
    limits = list(contract.limits)
    limits[index] = dataclasses.replace(limits[index], **changes)
    return dataclasses.replace(contract, limits=tuple(limits))


def changed(field: ActionField, **changes: object) -> ActionField:
    return dataclasses.replace(field, **changes)  # type: ignore[arg-type]


MISTAKES = {
    "twist components": (changed(CARTESIAN, kind="twist"), "linear_x.*for twist"),
    "twist of an arm": (
        changed(CARTESIAN, kind="twist", names=("linear_x", "angular_z"), scale=(0.5, 1.0)),
        "is a twist; expected a robot whose joints are x, y",
    ),
    "measured": (changed(CARTESIAN, reference="measured"), "reference 'measured'.*'commanded'"),
    "components": (
        changed(CARTESIAN, names=("x", "y", "z"), scale=(1.0,) * 3),
        "four for cartesian_delta",
    ),
    "frame": (changed(CARTESIAN, frame="world"), "frame 'world'.*'base'"),
    "tip": (changed(CARTESIAN, tip="flange"), "tip 'flange'.*'fr3_hand_tcp'"),
    "joint": (changed(DELTA, names=(*ARM[:6], "fr3_joint8")), "'fr3_joint8'.*did you mean"),
    "gripper joint": (changed(GRIPPER, names=("finger",)), "the gripper's driver joint"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_field_that_cannot_be_commanded_is_refused(
    make_contract: MakeContract, robot: Robot, mistake: str
) -> None:
    field, message = MISTAKES[mistake]
    with pytest.raises(ContractError, match=message):
        make_controller(make_contract(field), robot)


def test_two_commands_of_one_thing_are_refused(make_contract: MakeContract, robot: Robot) -> None:
    for first in (DELTA, GRIPPER):
        with pytest.raises(ContractError, match="second"):
            make_controller(make_contract(first, changed(first, name="again")), robot)


def test_limits_that_do_not_fit_the_robot_are_refused(
    make_contract: MakeContract, robot: Robot
) -> None:
    contract = make_contract()
    for changes, message in (
        ({"velocity": 9.0}, "'fr3_joint2' have velocity 9.0"),
        ({"acceleration": -1.0}, "acceleration -1.0"),
        ({"lower": -3.0}, r"are \[-3.0"),
    ):
        with pytest.raises(ContractError, match=message):
            make_controller(with_limit(contract, 1, **changes), robot)
    other = dataclasses.replace(contract.limits[0], name="panda_joint1")
    for limits in ((other, *contract.limits[1:]), contract.limits[:7], contract.limits[::-1]):
        with pytest.raises(ContractError, match="limits"):
            make_controller(dataclasses.replace(contract, limits=limits), robot)


def test_a_cartesian_action_needs_a_workspace(make_contract: MakeContract, robot: Robot) -> None:
    with pytest.raises(ContractError, match="workspace.z"):
        make_controller(make_contract(workspace={"x": (0.3, 0.6), "y": (-0.3, 0.3)}), robot)


def test_a_gripper_action_needs_a_gripper(make_contract: MakeContract, robot: Robot) -> None:
    bare = dataclasses.replace(robot, gripper=None, limits=robot.limits[:7])
    with pytest.raises(ContractError, match="has no gripper"):
        make_controller(make_contract(limits=bare.limits), bare)
    controller = make_controller(make_contract(CARTESIAN, limits=bare.limits), bare)
    state = controller.step(controller.reset(robot.home[None, :7]), torch.zeros(1, 4))
    assert state["target"].shape == (1, 7) and state["gripper"].tolist() == [[1.0]]


def test_bad_actions_are_refused_and_named(controller: ActionController, robot: Robot) -> None:
    state = controller.reset(robot.home.repeat(3, 1))
    action = torch.zeros(3, 5)
    action[1, 2] = math.nan
    with pytest.raises(ContractError, match="action of row 1.*nan"):
        controller.step(state, action)
    with pytest.raises(ContractError, match=r"shape \(3, 4\).*\(N, 5\)"):
        controller.step(state, action[:, :4])
    with pytest.raises(ContractError, match="joint position has shape"):
        controller.reset(robot.home[None, :7])


def test_an_empty_batch_stays_empty(controller: ActionController, robot: Robot) -> None:
    state = controller.step(controller.reset(robot.home.repeat(0, 1)), torch.zeros(0, 5))
    assert {value.shape[0] for value in state.values()} == {0}


@pytest.mark.slow
def test_a_step_is_cheap(controller: ActionController, robot: Robot) -> None:
    state, action = controller.reset(robot.home.repeat(256, 1)), torch.randn(256, 5)
    durations = []
    for _ in range(200):
        start = time.perf_counter()
        controller.step(state, action)
        durations.append(time.perf_counter() - start)
    assert min(durations) < 1.5e-3
