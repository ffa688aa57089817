"""The gate of a base: every prefix of what it lets through ends at a standstill."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from gate_driver import NO_NUMBERS, SPECIAL
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_ros.deployment.safety.stream_gate import Gated
from grpo_ros.deployment.safety.twist_gate import COMPONENTS, TwistGate
from grpo_ros.errors import ContractError

PERIOD = 0.1
SPEED, ACCELERATION = np.array([0.6, 1.5]), np.array([1.0, 4.0])
STEP = ACCELERATION * PERIOD
ROUNDING = 1e-8


def opened() -> TwistGate:
    gate = TwistGate(SPEED, ACCELERATION, PERIOD)
    gate.open()
    return gate


def assert_sound(gated: Gated, before: np.ndarray) -> None:
    """Check that a message, and all that is left when nothing follows, is within limits."""
    twists = np.vstack([before, gated.points])
    assert np.isfinite(twists).all() and not gated.points[-1].any()
    assert (np.abs(twists) <= SPEED + ROUNDING).all()
    assert (np.abs(np.diff(twists, axis=0)) <= STEP + ROUNDING).all()
    curve = gated.curve
    assert curve is not None
    times = np.arange(0.0, curve.end_s + 0.01, 0.001)
    samples = [curve.sample(time_s) for time_s in times]
    positions, velocities = (np.array(values) for values in zip(*samples, strict=True))
    assert (np.abs(np.diff(velocities, axis=0)) <= ACCELERATION * 0.001 + ROUNDING).all()
    np.testing.assert_allclose(velocities[0], before, atol=1e-9)
    way = np.cumsum(0.5 * (velocities[1:] + velocities[:-1]), axis=0) * 0.001
    np.testing.assert_allclose(positions[1:], way, atol=1e-5)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_whatever_comes_in_every_prefix_of_what_goes_out_is_within_limits_and_ends_standing(
    data: st.DataObject,
) -> None:
    gate = opened()
    kinds = ["twists", "wild", "hold", "coast", "share", "names", "shape", "no_numbers", "again"]
    ops = st.tuples(st.sampled_from(kinds), st.integers(0, 2**32 - 1), st.integers(1, 16))
    before = np.zeros(2)
    for kind, seed, rows in data.draw(st.lists(ops, min_size=1, max_size=30)):
        gated = perform(gate, kind, seed, rows)
        if gated is not None:
            assert_sound(gated, before)
            before = gated.points[0]


def perform(gate: TwistGate, kind: str, seed: int, rows: int) -> Gated | None:
    random = np.random.default_rng(seed)
    twists: Any = 2.0 * SPEED * random.standard_normal((rows, 2))
    names = COMPONENTS
    match kind:
        case "hold":
            return gate.hold()
        case "coast":
            return gate.coast()
        case "share":
            gate.speed_share = random.choice([0.0, 0.2, 1.0])
            return None
        case "wild":
            twists = random.choice(SPECIAL, (rows, 2))
        case "again":
            twists = gate.plan if len(gate.plan) else twists
        case "names":
            names = COMPONENTS[::-1]
        case "shape":
            twists = np.zeros([(rows, 3), (0, 2), (2,), ()][seed % 4])
        case "no_numbers":
            twists = NO_NUMBERS[seed % len(NO_NUMBERS)]
    return gate.admit(names, twists)


def test_twists_within_limits_pass_bit_for_bit() -> None:
    gate = opened()
    twists = np.column_stack([0.4 * np.sin(0.2 * np.arange(60)), np.sin(0.1 * np.arange(60))])
    for i in range(56):
        gated = gate.admit(COMPONENTS, twists[i : i + 4])
        assert gated.num_asked == 4
        assert gated.points[:4].tobytes() == twists[i : i + 4].tobytes()
    assert not gate.counts


@pytest.mark.parametrize(
    ("twist", "kind"),
    [
        ([0.7, 0.0], "velocity"),
        ([0.3, 0.0], "acceleration"),
        ([math.nan, 0.0], "not_finite"),
        ([0.1, 0.0, 0.0], "width"),
        ([True, False], "width"),
    ],
)
def test_every_intervention_is_counted_by_kind_with_a_reason(
    twist: list[float], kind: str
) -> None:
    gate = opened()
    gated = gate.admit(COMPONENTS, np.array([twist]))
    assert [found.kind for found in gated.interventions] == [kind]
    assert gated.interventions[0].reason and gate.counts == {kind: 1}


def test_it_brakes_in_the_fewest_periods_that_the_acceleration_allows() -> None:
    gate = opened()
    for _ in range(8):
        gate.admit(COMPONENTS, SPEED[None])
    points = gate.hold().points
    np.testing.assert_allclose(points[:, 0], [0.5, 0.4, 0.3, 0.2, 0.1, 0.0], atol=1e-12)
    np.testing.assert_allclose(points[:, 1], [1.1, 0.7, 0.3, 0.0, 0.0, 0.0], atol=1e-12)


def test_coasting_is_the_rest_of_what_was_sent_and_then_a_standstill() -> None:
    gate = opened()
    sent = gate.admit(COMPONENTS, np.array([[0.1, 0.4], [0.2, 0.6], [0.25, 0.4]]))
    for passed in range(1, len(sent.points)):
        gated = gate.coast()
        assert gated.is_known and np.array_equal(gated.points, sent.points[passed:])
    for _ in range(3):
        assert not gate.coast().points.any() and gate.is_at_rest


def test_twists_that_are_to_come_are_no_rest() -> None:
    gate = opened()
    gate.admit(COMPONENTS, np.array([[0.0, 0.0], [0.0, 0.0], [0.05, 0.0]]))
    assert not gate.is_at_rest
    gate.hold()
    assert gate.is_at_rest


def test_when_the_speed_share_falls_it_slows_down_within_its_acceleration() -> None:
    gate = opened()
    for _ in range(8):
        gate.admit(COMPONENTS, SPEED[None])
    gate.speed_share = 0.5
    speeds = [gate.admit(COMPONENTS, SPEED[None]).points[0, 0] for _ in range(5)]
    np.testing.assert_allclose(speeds, [0.5, 0.4, 0.3, 0.3, 0.3], atol=1e-12)


def test_nothing_passes_a_closed_gate_nor_survives_its_epoch() -> None:
    gate = TwistGate(SPEED, ACCELERATION, PERIOD)
    assert len(gate.admit(COMPONENTS, np.zeros((1, 2))).points) == 0
    assert len(gate.hold().points) == len(gate.coast().points) == 0
    epoch = gate.open()
    gate.admit(COMPONENTS, STEP[None])
    gate.close()
    gate.open()
    assert not gate.admits(epoch) and gate.is_at_rest and gate.counts == {"closed": 1}


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_speed_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ContractError, match=r"within \[0, 1\]"):
        opened().speed_share = share


@pytest.mark.parametrize("speed", [0.0, -1.0, math.inf, math.nan])
def test_limits_that_cannot_be_kept_are_refused(speed: float) -> None:
    with pytest.raises(ContractError, match="above 0"):
        TwistGate(np.array([speed, 1.0]), ACCELERATION, PERIOD)
