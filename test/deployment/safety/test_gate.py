"""The safety gate: nothing unsound leaves, nothing sound is touched."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from gate_driver import KINDS, Follower, operations, perform
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_ros.contract import JointLimits
from grpo_ros.deployment.safety.gate import SafetyGate
from grpo_ros.deployment.safety.stream_gate import Gated
from grpo_ros.errors import ContractError
from grpo_ros.robots.robot import load_robot

PERIOD = 0.05
LIMITS = (
    JointLimits("shoulder", -1.0, 1.0, 2.0, 10.0, 2000.0, 50.0),
    JointLimits("elbow", -3.0, -0.1, 2.6, 7.5, 2000.0, 50.0),
    JointLimits("wrist", 0.0, 4.5, 5.2, 20.0, 2000.0, 10.0),
)
NAMES = tuple(limit.name for limit in LIMITS)
START = np.array([0.2, -1.5, 1.0])


def opened() -> SafetyGate:
    gate = SafetyGate(LIMITS, PERIOD)
    gate.open(START)
    return gate


def assert_within_limits(stream: np.ndarray, start: np.ndarray = START) -> None:
    lower, upper, speed, acceleration = (
        np.array([getattr(limit, name) for limit in LIMITS])
        for name in ("lower", "upper", "velocity", "acceleration")
    )
    assert np.isfinite(stream).all()
    assert (stream >= lower - 1e-9).all() and (stream <= upper + 1e-9).all()
    velocity = np.diff(np.vstack([start, stream]), axis=0) / PERIOD
    assert (np.abs(velocity) <= speed * (1 + 1e-5)).all()
    change = np.diff(np.vstack([np.zeros(3), velocity]), axis=0) / PERIOD
    assert (np.abs(change) <= acceleration * (1 + 1e-5) + 1e-5 * speed / PERIOD).all()


def assert_ends_at_rest(gated: Gated) -> None:
    """Whoever dies after sending this leaves an arm that stops within the limits."""
    assert gated.curve is not None
    assert not gated.curve.velocities[-1].any()
    assert np.array_equal(gated.curve.positions[-1], gated.points[-1])
    points = gated.points
    assert len(points) == 1 or np.array_equal(points[-1], points[-2])


def smooth_targets(num: int) -> np.ndarray:
    time = np.arange(1, num + 1)[:, None] * PERIOD
    return START + 0.3 * np.sin(0.8 * time) * np.array([1.0, 1.2, 2.0])


def test_nominal_targets_pass_bit_for_bit() -> None:
    gate = opened()
    targets = smooth_targets(200)
    for i in range(197):
        gated = gate.admit(NAMES, targets[i : i + 4])
        assert gated.num_asked == 4
        assert gated.points[:4].tobytes() == targets[i : i + 4].tobytes()
        assert_ends_at_rest(gated)
        assert gated.interventions == ()
    assert not gate.counts


def test_preview_points_do_not_count_as_sent() -> None:
    gate = opened()
    targets = smooth_targets(8)
    gate.admit(NAMES, targets)
    assert np.array_equal(gate.position, targets[0])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_target_that_is_not_finite_is_refused_and_the_joints_come_to_rest(bad: float) -> None:
    gate = opened()
    targets = smooth_targets(60)
    for target in targets[:40]:
        gate.admit(NAMES, target[None])
    wrong = targets[40].copy()
    wrong[1] = bad
    stream = [np.vstack([targets[:40]])]
    for _ in range(10):
        gated = gate.admit(NAMES, wrong[None])
        assert gated.interventions[0].kind == "not_finite"
        stream.append(gated.points[:1])
    assert gate.is_at_rest
    assert_within_limits(np.vstack(stream))


def test_a_point_that_is_not_finite_later_in_the_chunk_cuts_the_chunk_there() -> None:
    targets = smooth_targets(5)
    targets[3, 0] = math.nan
    gated = opened().admit(NAMES, targets)
    assert gated.num_asked == 3
    assert np.array_equal(gated.points[:3], targets[:3])
    assert_ends_at_rest(gated)


@pytest.mark.parametrize(
    ("names", "points", "kind"),
    [
        (NAMES[::-1], START[None], "names"),
        (NAMES[:2], START[None, :2], "names"),
        (NAMES, START[None, :2], "width"),
        (NAMES, START, "width"),
        (NAMES, np.array([["0.2", "-1.5", "1.0"]]), "width"),
        (NAMES, np.array([[0.2, -1.5, 1.0 + 2.0j]]), "width"),
        (NAMES, np.array([[0.2, -1.5, None]]), "width"),
        (NAMES, np.zeros((0, 3)), "width"),
        (NAMES, np.array([[10.0, -1.5, 1.0]]), "position"),
        (NAMES, START[None] + 0.11, "velocity"),
        (NAMES, START[None] + 0.04, "acceleration"),
    ],
)
def test_every_intervention_is_counted_by_kind_with_a_reason(
    names: tuple[str, ...], points: np.ndarray, kind: str
) -> None:
    gate = opened()
    gated = gate.admit(names, points)
    assert kind in {intervention.kind for intervention in gated.interventions}
    assert gate.counts[kind] == 1
    assert all(intervention.reason for intervention in gated.interventions)
    assert_within_limits(gated.points)


def test_6000_hostile_targets_never_violate_a_limit() -> None:
    """A million of them: `python -m bench gate`."""
    num = 6_000
    random = np.random.default_rng(7)
    gate = opened()
    specials = np.array([math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 0.0, 1e6])
    scale = 10.0 ** random.uniform(-6, 3, size=(num, 1))
    hostile = START + scale * random.standard_normal((num, 3))
    rows = random.random(num) < 0.1
    hostile[rows, random.integers(0, 3, rows.sum())] = random.choice(specials, rows.sum())
    stream = np.empty_like(hostile)
    for i, target in enumerate(hostile):
        stream[i] = gate.admit(NAMES, target[None]).points[0]
    assert_within_limits(stream)


ROBOT_LIMITS = {
    name: load_robot(name).limits[: len(load_robot(name).arm_joints)]
    for name in ("franka_fr3", "ur5e")
}


@pytest.mark.parametrize("robot", ["franka_fr3", "ur5e"])
@pytest.mark.parametrize("period_s", [0.002, 0.005, 0.02, 0.05])
@pytest.mark.parametrize("jerk", [1.0, 0.03])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_whatever_comes_in_every_prefix_of_what_goes_out_keeps_all_limits_and_ends_at_rest(
    robot: str, period_s: float, jerk: float, data: st.DataObject
) -> None:
    """Jerk limits of 0.03 times the robot's are those that lower the acceleration."""
    limits = [dataclasses.replace(limit, jerk=jerk * limit.jerk) for limit in ROBOT_LIMITS[robot]]
    place = data.draw(st.lists(st.floats(-0.1, 1.1), min_size=len(limits), max_size=len(limits)))
    start = np.array(
        [x.lower + share * (x.upper - x.lower) for x, share in zip(limits, place, strict=True)]
    )
    gate = SafetyGate(limits, period_s)
    gate.open(start)
    follower = Follower(limits, period_s, gate.limiter.ramp_s, start)
    kinds = data.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4))
    for operation in data.draw(operations(kinds)):
        gated = perform(gate, operation, start)
        if gated is not None and len(gated.points):
            assert gated.curve is not None
            follower.follow(gated.curve)
            assert_ends_at_rest(gated)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.0, 0.1, 0.6]))
def test_when_the_speed_share_falls_in_motion_joints_slow_down_within_all_limits(
    seed: int, share: float
) -> None:
    gate = opened()
    follower = Follower(LIMITS, PERIOD, gate.limiter.ramp_s, START)
    far = START[None] + 100.0 * np.random.default_rng(seed).choice([-1.0, 1.0], 3)
    speeds = []
    for tick in range(30):
        if tick == 5:
            gate.speed_share = share
        gated = gate.admit(NAMES, far)
        assert gated.curve is not None
        follower.follow(gated.curve)
        speeds.append(np.abs(gate.velocity))
    most = np.array([limit.velocity for limit in LIMITS])
    assert (np.array(speeds[5 + 11 :]) <= share * most + 1e-9).all()  # 5.2 / (20 T) periods
    assert gate.counts["velocity"] == 30


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan, math.inf])
def test_a_speed_share_that_is_none_is_refused_and_changes_nothing(share: float) -> None:
    gate = opened()
    gate.speed_share = 0.5
    with pytest.raises(ContractError, match=r"within \[0, 1\]"):
        gate.speed_share = share
    assert gate.speed_share == 0.5


@pytest.mark.parametrize("num_admitted", [1, 3, 8])
def test_coasting_after_the_last_chunk_is_the_rest_of_what_was_sent_to_its_end(
    num_admitted: int,
) -> None:
    gate = opened()
    targets = smooth_targets(40)
    for i in range(num_admitted):
        sent = gate.admit(NAMES, targets[i : i + 4])
    curve = sent.curve
    assert curve is not None
    for passed in range(1, len(sent.points) + 3):
        gated = gate.coast()
        assert gated.curve is not None
        assert gated.interventions == () and gated.num_asked == 0
        if passed < len(sent.points):
            assert gated.is_known
            assert gated.points.tobytes() == sent.points[passed:].tobytes()
        for share in (0.0, 0.4, 1.0, 3.7):
            time_s = share * PERIOD
            for got, wanted in zip(
                gated.curve.sample(time_s), curve.sample(passed * PERIOD + time_s), strict=True
            ):
                np.testing.assert_allclose(got, wanted, rtol=0.0, atol=1e-12)
    assert gate.is_at_rest and np.array_equal(gate.position, sent.points[-1])


def test_going_on_along_a_chunk_sends_the_same_motion_again() -> None:
    gate = opened()
    targets = smooth_targets(60)
    for i in range(40):
        gate.admit(NAMES, targets[i : i + 1])
    sent = gate.admit(NAMES, targets[40:44])
    for passed in range(1, 4):
        gated = gate.admit(NAMES, targets[40 + passed : 44])
        assert gated.is_known and gated.num_asked == 4 - passed
        assert gated.points.tobytes() == sent.points[passed:].tobytes()
    assert not gate.counts


def test_a_chunk_that_goes_on_is_looked_at_again_once_the_speed_share_has_fallen() -> None:
    gate = opened()
    targets = smooth_targets(30)
    for i in range(20):
        gate.admit(NAMES, targets[i : i + 1])
    gate.admit(NAMES, targets[20:24])
    gate.speed_share = 0.01
    assert gate.admit(NAMES, targets[21:24]).interventions[0].kind == "velocity"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.floats(allow_nan=True, allow_infinity=True, width=64)] * 3),
        min_size=1,
        max_size=40,
    ),
    st.lists(st.sampled_from(["admit", "hold"]), min_size=1, max_size=8),
)
def test_any_mixture_of_targets_and_holds_stays_within_limits(
    targets: list[tuple[float, ...]], operations: list[str]
) -> None:
    gate = opened()
    stream = []
    for i, target in enumerate(targets):
        if operations[i % len(operations)] == "hold":
            stream.append(gate.hold().points[0])
        else:
            stream.append(gate.admit(NAMES, np.array([target])).points[0])
    stream.extend(gate.hold().points)
    assert_within_limits(np.array(stream))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2), st.sampled_from([-1.0, 1.0]))
def test_pushed_at_a_position_limit_it_brakes_in_time_and_reaches_the_limit(
    joint: int, sign: float
) -> None:
    gate = opened()
    target = START.copy()
    target[joint] += sign * 100.0
    stream = np.array([gate.admit(NAMES, target[None]).points[0] for _ in range(200)])
    assert_within_limits(stream)
    limit = LIMITS[joint].upper if sign > 0 else LIMITS[joint].lower
    assert abs(stream[-1, joint] - limit) < 1e-3


def test_hold_brakes_to_rest_within_limits_and_then_stays() -> None:
    gate = opened()
    far = START[None] + np.array([0.0, 0.0, 100.0])
    moved = np.vstack([gate.admit(NAMES, far).points[:1] for _ in range(8)])
    points = gate.hold().points
    assert_within_limits(np.vstack([moved, points]))
    assert 1 < len(points) < 20
    while not gate.is_at_rest:
        gate.hold()
    assert np.allclose(gate.hold().points, points[-1], atol=1e-12)


OUTSIDE = np.array([3.0, -1.5, 1.0])
"""The shoulder is 2 rad beyond its upper limit of 1."""


def test_a_joint_that_starts_outside_its_limits_stays_where_it_is_asked_to_stay() -> None:
    gate = SafetyGate(LIMITS, PERIOD)
    gate.open(OUTSIDE)
    for _ in range(20):
        gated = gate.admit(NAMES, OUTSIDE[None])
        assert np.array_equal(gated.points[0], OUTSIDE) and gated.interventions == ()
    assert np.array_equal(gate.hold().points[-1], OUTSIDE)


def test_a_joint_that_starts_outside_its_limits_comes_back_no_faster_than_they_allow() -> None:
    gate = SafetyGate(LIMITS, PERIOD)
    gate.open(OUTSIDE)
    follower = Follower(LIMITS, PERIOD, gate.limiter.ramp_s, OUTSIDE)
    stream = []
    for _ in range(80):
        gated = gate.admit(NAMES, np.array([[-5.0, -1.5, 1.0]]))
        assert gated.curve is not None
        follower.follow(gated.curve)
        stream.append(gated.points[0])
    assert (np.diff(np.array(stream)[:, 0]) <= 0.0).all()
    assert abs(stream[-1][0] - LIMITS[0].lower) < 1e-3


def test_a_joint_outside_its_limits_never_goes_further_out_not_even_back_to_its_start() -> None:
    gate = SafetyGate(LIMITS, PERIOD)
    gate.open(OUTSIDE)
    for _ in range(4):
        gate.admit(NAMES, np.array([[2.0, -1.5, 1.0]]))
    while not gate.is_at_rest:
        gate.hold()
    reached = gate.position[0]
    for _ in range(20):
        gated = gate.admit(NAMES, OUTSIDE[None])
        assert gated.points[:, 0].max() <= reached + 1e-9
        assert "position" in {found.kind for found in gated.interventions}


def test_a_plan_that_stands_now_and_moves_later_is_not_at_rest() -> None:
    gate = opened()
    assert gate.is_at_rest
    later = np.vstack([START, START, START, START + 0.01])
    gate.admit(NAMES, later)
    assert not gate.velocity.any() and not gate.is_at_rest
    gate.hold()
    assert gate.is_at_rest
    gate.admit(NAMES, np.vstack([START, START]))
    assert gate.is_at_rest


def test_nothing_passes_a_closed_gate_nor_survives_its_epoch() -> None:
    gate = SafetyGate(LIMITS, PERIOD)
    assert len(gate.admit(NAMES, START[None]).points) == 0
    epoch = gate.open(START)
    assert gate.admits(epoch)
    gate.close()
    assert not gate.admits(epoch)
    gate.open(START)
    assert not gate.admits(epoch)
    assert gate.counts["closed"] == 1


@pytest.mark.parametrize("position", [[0.0, math.nan, 0.0], [0.0, 0.0]])
def test_it_does_not_open_at_an_unsound_position(position: list[float]) -> None:
    with pytest.raises(ContractError, match="3 finite numbers"):
        SafetyGate(LIMITS, PERIOD).open(np.array(position))


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["velocity", "acceleration", "jerk"])
def test_limits_that_cannot_be_kept_are_refused(name: str, value: float) -> None:
    broken = dataclasses.replace(LIMITS[0], **{name: value})
    with pytest.raises(ContractError, match="acceleration and jerk above 0"):
        SafetyGate([broken], PERIOD)


@pytest.mark.parametrize(
    ("position", "effort", "passes"),
    [
        (0.04, 20.0, True),
        (0.0, 0.0, True),
        (0.05, 20.0, False),
        (math.nan, 20.0, False),
        (0.02, math.inf, False),
        (0.02, 80.0, False),
        (0.02, -1.0, False),
    ],
)
def test_gripper_commands_are_refused_outside_their_limits(
    position: float, effort: float, passes: bool
) -> None:
    gate = opened()
    limit = JointLimits("finger", 0.0, 0.04, 0.2, 5.0, 100.0, 70.0)
    may_pass, interventions = gate.admit_gripper(position, effort, limit)
    assert may_pass is passes
    assert gate.counts["gripper"] == len(interventions) == (0 if passes else 1)
