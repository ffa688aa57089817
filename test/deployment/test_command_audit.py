"""The audit of what was commanded finds what exceeds a limit, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from grpo_ros.contract import JointLimits
from grpo_ros.deployment.records.command_audit import CommandAudit, sample
from grpo_ros.deployment.safety.curve import Curve
from grpo_ros.deployment.safety.gate import SafetyGate

PERIOD_S = 0.05
PERIOD_NS = 50_000_000
LIMITS = (JointLimits("a", -3.0, 3.0, 2.0, 10.0, 5000.0, 1.0),)


def pushed(num: int, audit: CommandAudit) -> None:
    """Push a gated joint as hard as its limits let it, back and forth."""
    gate = SafetyGate(LIMITS, PERIOD_S)
    gate.open(np.zeros(1))
    for i in range(num):
        target = 100.0 if (i // 20) % 2 == 0 else -100.0
        gated = gate.admit(("a",), np.full((4, 1), target))
        assert gated.curve is not None
        audit.note(i * PERIOD_NS, gated.curve)
    audit.finish()


def test_a_gated_stream_reaches_its_limits_and_never_exceeds_them() -> None:
    audit = CommandAudit(LIMITS)
    pushed(80, audit)
    report = audit.report()
    assert audit.is_within_limits, report
    assert report["velocity_share"] == pytest.approx(1.0, abs=1e-6)
    assert report["acceleration_share"] == pytest.approx(1.0, abs=1e-6)
    assert 0.5 <= report["jerk_share"] <= 1.0 + 1e-6
    assert report["motions"] == 80
    assert report["largest_jump"] < 1e-9 and report["largest_velocity_jump"] < 1e-9


def still(position: float, velocity: float = 0.0) -> Curve:
    """A motion of one knot."""
    return Curve(np.zeros(1), np.full((1, 1), position), np.full((1, 1), velocity))


def moving(*knots: tuple[float, float, float]) -> Curve:
    """A motion through knots of time, position and velocity."""
    times, positions, velocities = np.array(knots).T
    return Curve(times, positions[:, None], velocities[:, None])


def test_a_stream_that_jumps_at_every_period_is_not_within_limits() -> None:
    """The accelerations of its pieces are all 0, so no share of a limit tells of it."""
    audit = CommandAudit(LIMITS)
    for i in range(4):
        audit.note(i * PERIOD_NS, still(0.5 * i))
    audit.finish()
    assert audit.report()["largest_jump"] == pytest.approx(0.5)
    assert max(audit.shares.values()) == 0.0 and not audit.is_within_limits


def test_a_motion_that_goes_on_at_another_speed_is_not_within_limits() -> None:
    audit = CommandAudit(LIMITS)
    audit.note(0, moving((0.0, 0.0, 1.0), (0.2, 0.2, 1.0), (0.4, 0.3, 0.0)))
    audit.note(2 * PERIOD_NS, moving((0.0, 0.1, 0.5), (0.2, 0.2, 0.5), (0.4, 0.25, 0.0)))
    audit.finish()
    assert audit.report()["largest_velocity_jump"] == pytest.approx(0.5)
    assert audit.jump < 1e-12 and not audit.is_within_limits


@pytest.mark.parametrize(
    "curve",
    [
        moving((0.0, 0.0, 0.0), (0.0001, 0.1, 0.0), (0.1, 0.1, 0.0)),
        moving((0.0, 0.0, 0.0), (0.05, 0.0, 0.0), (0.05, 0.1, 0.0), (0.1, 0.1, 0.0)),
        moving((0.0, 0.0, 0.0), (0.0001, 0.0, 1.0), (0.4001, 0.2, 0.0)),
        moving((0.0, 0.0, 0.0), (0.4, 0.1, 0.5)),
    ],
    ids=["leap", "two_places_at_once", "sudden_speed", "ends_in_motion"],
)
def test_a_leap_within_a_motion_is_not_within_limits(curve: Curve) -> None:
    audit = CommandAudit(LIMITS)
    audit.note(0, curve)
    audit.finish()
    assert not audit.is_within_limits, audit.report()


def test_a_short_piece_within_limits_is_no_leap() -> None:
    audit = CommandAudit(LIMITS)
    audit.note(0, moving((0.0, 0.0, 1.0), (0.0001, 0.0001, 1.0), (0.4001, 0.2001, 0.0)))
    audit.finish()
    assert audit.is_within_limits and audit.jump == 0.0, audit.report()


def test_what_begins_elsewhere_after_a_reset_is_no_jump() -> None:
    audit = CommandAudit(LIMITS)
    audit.note(0, still(0.0))
    audit.begin()
    audit.note(PERIOD_NS, still(0.5))
    audit.finish()
    assert audit.is_within_limits and audit.jump == 0.0


def test_only_what_was_heard_and_read_is_within_limits() -> None:
    audit = CommandAudit(LIMITS)
    assert not audit.is_within_limits
    audit.note(0, still(0.0))
    audit.finish()
    assert audit.is_within_limits
    audit.num_unreadable += 1
    assert not audit.is_within_limits and audit.report()["unreadable"] == 1


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (JointLimits("a", -3.0, 3.0, 1.9, 10.0, 5000.0, 1.0), "velocity"),
        (JointLimits("a", -3.0, 3.0, 2.0, 9.0, 5000.0, 1.0), "acceleration"),
        (JointLimits("a", -3.0, 3.0, 2.0, 10.0, 2000.0, 1.0), "jerk"),
    ],
)
def test_tighter_limits_are_seen_to_be_exceeded(limits: JointLimits, name: str) -> None:
    audit = CommandAudit([limits])
    pushed(80, audit)
    assert not audit.is_within_limits
    assert audit.shares[name] > 1.01


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("field", ["positions", "velocities"])
def test_a_motion_that_is_no_number_is_not_within_limits(field: str, value: float) -> None:
    audit = CommandAudit(LIMITS)
    good = {"positions": np.zeros((3, 1)), "velocities": np.zeros((3, 1))}
    bad = {**good, field: np.array([[0.0], [value], [0.0]])}
    with np.errstate(invalid="ignore"):
        audit.note(0, Curve(PERIOD_S * np.arange(3), **bad))
        audit.note(2 * PERIOD_NS, Curve(np.zeros(1), np.zeros((1, 1)), np.zeros((1, 1))))
        audit.finish()
    assert not audit.is_within_limits


def test_samples_equal_those_of_the_curve() -> None:
    gate = SafetyGate(LIMITS, PERIOD_S)
    gate.open(np.zeros(1))
    curve = gate.admit(("a",), np.full((4, 1), 1.0)).curve
    assert curve is not None
    times = np.linspace(0.0, 1.2 * curve.end_s, 50)
    position, velocity, _ = sample(curve, times)
    for row, time_s in enumerate(times):
        expected = curve.sample(float(time_s))
        assert np.allclose(position[row], expected[0]) and np.allclose(velocity[row], expected[1])
