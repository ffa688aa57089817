"""Where an arm may go: on every control point of everything sent, and near it in between."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from gate_driver import KINDS, operations, perform, sampled
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_ros.deployment.safety.curve import Array, Curve
from grpo_ros.deployment.safety.gate import SafetyGate
from grpo_ros.deployment.safety.geometry import SLACK_M, ArmGeometry
from grpo_ros.robots import LinkClearance, Robot, load_robot
from grpo_ros.robots.chain_frames import ChainFrames, manipulability_of
from grpo_ros.robots.kinematics import manipulability, solve_ik

ROBOTS = {name: load_robot(name) for name in ("franka_fr3", "ur5e", "so101")}
DOWN = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
CENTRE = (0.475, 0.0, 0.2)


def posed(robot: Robot, tip: tuple[float, float, float] = CENTRE) -> Array:
    """Return joint positions (A,) with the tip somewhere, pointing down."""
    start = robot.home[: robot.chain.num_joints][None]
    q = solve_ik(robot.chain, torch.tensor([tip]).double(), DOWN[None], start)
    reached = robot.chain.forward(q)[0][0].numpy()
    np.testing.assert_allclose(reached, tip, atol=1e-4)
    return q[0].numpy()


def make_gate(robot: Robot, period_s: float = 0.05, cap: float | None = None) -> SafetyGate:
    num = robot.chain.num_joints
    speed = robot.safety.tip_speed_m_s if cap is None else cap
    return SafetyGate(robot.limits[:num], period_s, ArmGeometry(robot, period_s, speed))


def with_safety(robot: Robot, **changes: object) -> Robot:
    safety = dataclasses.replace(robot.safety, **changes)  # type: ignore[arg-type]
    description = dataclasses.replace(robot.description, safety=safety)
    return dataclasses.replace(robot, description=description)


class Truth:
    """What is watched, computed with the kinematics that training uses."""

    def __init__(self, robot: Robot) -> None:
        self.robot, self.safety = robot, robot.safety
        self.clearance = LinkClearance(robot)
        margin = robot.safety.workspace_margin_m
        box = [robot.workspace[axis] for axis in ("x", "y", "z")]
        self.lower = np.array([[low - margin] for low, _ in box])
        self.upper = np.array([[high + margin] for _, high in box])
        if robot.safety.table_height_m is not None:
            lowest = robot.safety.table_height_m - robot.safety.tip_below_table_m
            self.lower[2] = max(self.lower[2, 0], lowest)

    def excess(self, points: Array) -> Array:
        """Return how far positions (N, A) are beyond each limit, (4, N)."""
        q = np.ascontiguousarray(points.T)
        pose = self.robot.chain.pose(q)
        outside = np.maximum(self.lower - pose.position, pose.position - self.upper).max(axis=0)
        height, distance = self.clearance.both(q)
        return np.stack(
            [
                outside,
                self.safety.table_clearance_m - height,
                self.safety.self_clearance_m - distance,
                self.safety.manipulability - manipulability(pose.jacobian),
            ]
        )

    def tips(self, points: Array) -> Array:
        """Return the tip's positions (N, 3)."""
        return self.robot.chain.forward_columns(np.ascontiguousarray(points.T))[0].T


# ---------------------------------------------------------------- hostile sequences


@pytest.mark.parametrize("name", ["franka_fr3", "ur5e"])
@pytest.mark.parametrize("period_s", [0.02, 0.05])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_whatever_comes_in_all_control_points_sent_are_where_the_arm_may_be(
    name: str, period_s: float, data: st.DataObject
) -> None:
    """Half of the runs begin at home, which for Franka's arm is above its workspace."""
    robot = ROBOTS[name]
    truth = Truth(robot)
    is_home = data.draw(st.booleans())
    start = robot.home[: robot.chain.num_joints].numpy() if is_home else posed(robot)
    gate = make_gate(robot, period_s)
    gate.open(start)
    allowed = np.maximum(truth.excess(start[None]), 0.0) + SLACK_M + 1e-9
    kinds = data.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4))
    for operation in data.draw(operations(kinds, most=16)):
        before = gate.position
        gated = perform(gate, operation, start)
        if gated is None:
            if operation[0] == "reopen":
                allowed = np.maximum(truth.excess(before[None]), 0.0) + SLACK_M + 1e-9
            continue
        if not len(gated.points):
            continue
        assert (truth.excess(gated.points) <= allowed).all()
        assert_can_stop(gate, before)
        tips = truth.tips(np.vstack([before, gated.points]))
        speeds = np.linalg.norm(np.diff(tips, axis=0), axis=1) / period_s
        assert speeds.max() <= robot.safety.tip_speed_m_s + 1e-6


def assert_can_stop(gate: SafetyGate, before: Array) -> None:
    """However far the bounds have followed an arm back, its way to rest keeps them."""
    tail = gate.limiter.braking(gate.position, gate.velocity)[:, None]
    assert gate.geometry is not None
    assert gate.geometry.admissible(before, gate.position[None], tail, is_chain=False).all()


REACH_M = {"franka_fr3": 1.3, "ur5e": 1.3}
"""Longest distance from a joint's axis to a point that it moves, generously."""


@pytest.mark.parametrize("name", ["franka_fr3", "ur5e"])
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), gain=st.sampled_from([0.3, 1.0, 3.0]))
def test_the_curve_stays_near_the_control_points_in_what_is_watched(
    name: str, seed: int, gain: float
) -> None:
    """The curve is a mean of positions between control points less than 2 T apart.

    With r the sum over joints of the distance from the curve to the farthest of those points, the
    tip is within reach r^2 / 2 of that mean of their tips (second derivatives of a chain are at
    most its reach), so within that of the box, which is convex; links are within reach r of
    where they were judged. The tip moves at most reach r s faster than a mean of judged speeds,
    with s the sum of the joints' speeds.
    """
    robot, period_s = ROBOTS[name], 0.05
    truth, gate = Truth(robot), make_gate(robot)
    start = posed(robot)
    gate.open(start)
    random = np.random.default_rng(seed)
    recent = [start] * 4
    heading = random.standard_normal(len(start))
    for tick in range(40):
        if tick % 10 == 0:
            heading = random.standard_normal(len(start))
        step = gain * 0.02 * heading
        gated = gate.admit(gate.joint_names, gate.position + np.arange(1, 5)[:, None] * step[None])
        recent = [*recent, gated.points[0]][-4:]
        assert gated.curve is not None
        assert_near(truth, gated.curve, np.array(recent), period_s, REACH_M[name])


def assert_near(truth: Truth, curve: Curve, near: Array, period_s: float, reach: float) -> None:
    path = sampled(curve, np.arange(0.0, period_s, 0.001))
    away = np.abs(path[:, None] - near[None]).sum(axis=2)
    spread = float(away.max())
    excess = truth.excess(path)
    assert excess[0].max() <= SLACK_M + 0.5 * reach * spread**2
    assert excess[1:3].max() <= SLACK_M + reach * float(away.min(axis=1).max())
    tips = np.linalg.norm(np.diff(truth.tips(path), axis=0), axis=1) / 0.001
    joints = float(np.abs(np.diff(near, axis=0)).sum(axis=1).max()) / period_s
    assert tips.max() <= truth.safety.tip_speed_m_s + reach * spread * joints + 1e-6


# ---------------------------------------------------------------- one limit each


@pytest.mark.parametrize("name", ["franka_fr3", "ur5e"])
def test_pushed_at_a_wall_of_its_workspace_the_tip_comes_to_rest_before_it(name: str) -> None:
    robot = ROBOTS[name]
    gate, truth = make_gate(robot), Truth(robot)
    gate.open(posed(robot))
    found = set()
    for _ in range(60):
        jacobian = robot.chain.pose(gate.position[:, None]).jacobian[:, :, 0]
        push = np.linalg.pinv(jacobian, rcond=1e-2) @ np.array([0.01, 0.0, 0.0, 0.0, 0.0, 0.0])
        gated = gate.admit(gate.joint_names, (gate.position + push)[None])
        found |= {one.kind for one in gated.interventions}
    tip = truth.tips(gate.position[None])[0]
    wall = truth.upper[0, 0]
    assert "workspace" in found
    assert wall - 0.02 < tip[0] <= wall + 2e-6
    assert np.abs(gate.velocity).max() < 0.05


@pytest.mark.parametrize("name", ["franka_fr3", "ur5e"])
def test_the_margin_of_the_workspace_ends_where_the_tip_may_be(name: str) -> None:
    robot = ROBOTS[name]
    gate, truth = make_gate(robot), Truth(robot)
    gate.open(posed(robot, (0.475, 0.0, 0.05)))
    for _ in range(40):
        jacobian = robot.chain.pose(gate.position[:, None]).jacobian[:, :, 0]
        push = np.linalg.pinv(jacobian, rcond=1e-2) @ np.array([0.0, 0.0, -0.01, 0.0, 0.0, 0.0])
        gated = gate.admit(gate.joint_names, (gate.position + push)[None])
        assert truth.tips(gated.points)[:, 2].min() >= truth.lower[2, 0] - 2e-6
    assert gate.counts["workspace"]
    assert truth.tips(gate.position[None])[0, 2] < 0.02


def test_an_arm_that_is_opened_outside_its_box_is_let_back_in_but_not_further_out() -> None:
    robot = ROBOTS["franka_fr3"]
    gate, truth = make_gate(robot), Truth(robot)
    start = posed(robot, (0.475, 0.0, 0.47))
    out, back = posed(robot, (0.475, 0.0, 0.52)), posed(robot)
    gate.open(start)
    beyond = truth.excess(start[None])[0, 0]
    assert beyond > 0.04
    for _ in range(10):
        gated = gate.admit(gate.joint_names, out[None])
        assert "workspace" in {found.kind for found in gated.interventions}
        assert truth.excess(gated.points)[0].max() <= beyond + SLACK_M
    for _ in range(80):
        gate.admit(gate.joint_names, (gate.position + 0.1 * (back - gate.position))[None])
    assert truth.excess(gate.position[None])[0, 0] < 0.0


def pushed(gate: SafetyGate, robot: Robot, direction: list[float], num: int) -> Array:
    """Push the tip by 1 cm per period; return all control points that were sent."""
    sent = []
    for _ in range(num):
        jacobian = robot.chain.pose(gate.position[:, None]).jacobian[:, :, 0]
        push = np.linalg.pinv(jacobian, rcond=1e-2) @ np.array([*direction, 0.0, 0.0, 0.0])
        sent.append(gate.admit(gate.joint_names, (gate.position + 0.01 * push)[None]).points)
    return np.vstack(sent)


def test_an_arm_that_is_opened_above_its_box_may_not_leave_it_below() -> None:
    robot = ROBOTS["franka_fr3"]
    gate, truth = make_gate(robot), Truth(robot)
    gate.open(posed(robot, (0.475, 0.0, 0.47)))
    points = pushed(gate, robot, [0.0, 0.0, -1.0], 120)
    tips = truth.tips(points)[:, 2]
    assert tips[-1] < truth.lower[2, 0] + 0.02
    assert tips.min() >= truth.lower[2, 0] - 2.0 * SLACK_M
    assert gate.counts["workspace"]


def test_an_arm_that_came_back_part_of_the_way_may_not_go_out_so_far_again() -> None:
    """Alternately in and out; each point sent is no further out than any way to rest before it."""
    robot = ROBOTS["franka_fr3"]
    gate, truth = make_gate(robot), Truth(robot)
    start = posed(robot, (0.475, 0.0, 0.47))
    gate.open(start)
    began = truth.tips(start[None])[0, 2]
    reached = truth.tips(pushed(gate, robot, [0.0, 0.0, -1.0], 3))[-1, 2]
    assert truth.upper[2, 0] < reached < began - 0.01
    again = truth.tips(pushed(gate, robot, [0.0, 0.0, 1.0], 20))[:, 2]
    assert again.max() <= reached + 0.004
    assert gate.counts["workspace"]


def test_a_preview_of_going_in_and_out_again_is_cut_where_it_turns() -> None:
    robot = ROBOTS["franka_fr3"]
    gate, truth = make_gate(robot), Truth(robot)
    start, lower = posed(robot, (0.475, 0.0, 0.47)), posed(robot, (0.475, 0.0, 0.45))
    gate.open(start)
    share = np.sin(np.linspace(0.0, np.pi, 21))[1:, None] ** 2
    sent = gate.admit(gate.joint_names, start + share * (lower - start))
    heights = truth.tips(sent.points)[:, 2]
    assert 8 < sent.num_asked < 20 and np.array_equal(sent.points[-1], sent.points[-2])
    assert heights[-1] < heights.min() + 0.002
    for _ in range(len(sent.points)):
        before = gate.position
        coasted = gate.coast()
        assert_can_stop(gate, before)
    assert gate.is_at_rest and np.array_equal(coasted.points[0], sent.points[-1])


def test_a_cap_of_the_tips_speed_is_kept_and_reached() -> None:
    robot = ROBOTS["ur5e"]
    gate, truth = make_gate(robot, cap=0.2), Truth(robot)
    gate.open(posed(robot))
    fastest, found = 0.0, set()
    for _ in range(25):
        before = gate.position
        target = before.copy()
        target[0] += 0.05
        gated = gate.admit(gate.joint_names, target[None])
        found |= {one.kind for one in gated.interventions}
        tips = truth.tips(np.vstack([before, gated.points]))
        fastest = max(fastest, np.linalg.norm(np.diff(tips, axis=0), axis=1).max() / 0.05)
    assert "tip_speed" in found
    assert 0.17 < fastest <= 0.2 + 1e-9


@pytest.mark.parametrize(
    ("kind", "safety", "direction"),
    [
        ("table", {"table_height_m": 0.25, "self_clearance_m": 0.0}, [0, 1, 0, 0, 0, 0]),
        ("self_collision", {"self_clearance_m": 0.05}, [0, 0, 1, 0, 0, 0]),
        ("singularity", {"manipulability": 0.03}, [0, 0, -1, 0, 0, 0]),
    ],
)
def test_every_watch_names_what_would_be_wrong_and_stops_before_it(
    kind: str, safety: dict[str, float], direction: list[int]
) -> None:
    robot = with_safety(ROBOTS["ur5e"], tip_speed_m_s=0.0, **safety)
    wide = dataclasses.replace(robot.description, workspace={})
    robot = dataclasses.replace(robot, description=wide)
    gate = make_gate(robot)
    start = posed(ROBOTS["ur5e"])
    gate.open(start)
    reasons = {}
    for _ in range(80):
        target = gate.position + 0.02 * np.array(direction)
        for found in gate.admit(gate.joint_names, target[None]).interventions:
            reasons[found.kind] = found.reason
    assert kind in reasons, gate.counts
    assert any(word in reasons[kind] for word in ("would be", "singular"))
    assert gate.geometry is not None
    assert gate.geometry.admissible(
        gate.position, gate.position[None], gate.position[None, None], is_chain=False
    ).all()


def test_a_preview_is_cut_where_it_leads_out_and_ends_at_rest_inside() -> None:
    robot = ROBOTS["ur5e"]
    gate, truth = make_gate(robot), Truth(robot)
    start = posed(robot, (0.64, 0.0, 0.2))
    gate.open(start)
    outside = posed(robot, (0.72, 0.0, 0.2))
    share = np.array([0.02, 0.08, 0.18, 0.3, 0.44, 0.6, 0.78, 1.0])[:, None]
    gated = gate.admit(gate.joint_names, start + share * (outside - start))
    assert 1 < gated.num_asked < 8 and gated.interventions == ()
    assert truth.excess(gated.points)[0].max() <= SLACK_M
    assert np.array_equal(gated.points[-1], gated.points[-2])


def test_a_robot_that_watches_nothing_costs_nothing() -> None:
    robot = with_safety(
        ROBOTS["ur5e"], self_clearance_m=0.0, table_height_m=None, manipulability=0.0
    )
    bare = dataclasses.replace(
        robot, description=dataclasses.replace(robot.description, workspace={})
    )
    assert not ArmGeometry(bare, 0.05, 0.0).is_watching
    assert ArmGeometry(bare, 0.05, 0.5).kinds == ("tip_speed",)
    assert SafetyGate(bare.limits[:6], 0.05, ArmGeometry(bare, 0.05, 0.0)).geometry is None


def test_links_are_not_watched_against_each_other_without_a_clearance() -> None:
    robot = with_safety(ROBOTS["ur5e"], self_clearance_m=0.0)
    geometry = ArmGeometry(robot, 0.05, 0.0)
    folded = posed(ROBOTS["ur5e"]) * np.array([1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    folded[2] = 3.0
    assert geometry.describe(np.tile(folded, (2, 1)))[0] != "self_collision"


# ---------------------------------------------------------------- kinematics


@pytest.mark.parametrize("name", list(ROBOTS))
def test_frames_by_matrix_products_are_those_of_the_chain(name: str) -> None:
    chain = ROBOTS[name].chain
    random = np.random.default_rng(2)
    q = random.uniform(-2.0, 2.0, (chain.num_joints, 50))
    one = ChainFrames(chain)
    frames = one.at(q)
    pose = chain.pose(q)
    np.testing.assert_allclose(frames.tip, pose.position, atol=1e-14)
    jacobian = one.jacobian(frames)
    np.testing.assert_allclose(jacobian, pose.jacobian.transpose(2, 0, 1), atol=1e-14)
    np.testing.assert_allclose(
        manipulability_of(jacobian), manipulability(pose.jacobian), atol=1e-9
    )
