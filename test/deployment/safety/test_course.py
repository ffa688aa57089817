"""Motions on the wire: whenever they are made, each goes on exactly where the one before leads."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_ros.contract import JointLimits
from grpo_ros.deployment.safety.course import NANOSECONDS, Course, cut
from grpo_ros.deployment.safety.gate import SafetyGate

PERIOD_S = 0.05
PERIOD_NS = round(PERIOD_S * NANOSECONDS)
LIMITS = (
    JointLimits("shoulder", -1.0, 1.0, 2.0, 10.0, 2000.0, 50.0),
    JointLimits("elbow", -3.0, -0.1, 2.6, 7.5, 2000.0, 50.0),
)
NAMES = tuple(limit.name for limit in LIMITS)
START = np.array([0.2, -1.5])


def sent_at(ticks_ns: list[int], targets: np.ndarray) -> list[tuple[int, object]]:
    """Return what is sent at ticks, the last of which is a stop."""
    gate, course = SafetyGate(LIMITS, PERIOD_S), Course(PERIOD_S)
    gate.open(START)
    sent = []
    for now_ns, target in zip(ticks_ns, targets, strict=True):
        for _ in range(course.num_missed(now_ns)):
            if gate.is_at_rest:
                course.clear()
                break
            gate.coast()
            course.pass_by()
        gated = gate.hold() if now_ns == ticks_ns[-1] else gate.admit(NAMES, target[None])
        sent.append((now_ns, course.lay(gated.curve, now_ns)))
    return sent


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(0.02, 2.6), min_size=2, max_size=25),
    st.integers(0, 2**31),
)
def test_early_late_and_missed_ticks_make_no_jump_and_times_increase(
    steps: list[float], seed: int
) -> None:
    ticks = (NANOSECONDS + np.cumsum(np.array(steps) * PERIOD_NS)).astype(int).tolist()
    targets = START + np.random.default_rng(seed).uniform(-0.5, 0.5, (len(ticks), 2))
    sent = sent_at(ticks, targets)
    for (first_ns, first), (then_ns, then) in zip(sent, sent[1:], strict=False):
        old, old_speed = first.sample((then_ns - first_ns) / NANOSECONDS)
        new, new_speed = then.sample(0.0)
        np.testing.assert_allclose(new, old, atol=1e-7)
        np.testing.assert_allclose(new_speed, old_speed, atol=1e-4)
    for _, curve in sent:
        assert curve.times[0] == 0.0 and not curve.velocities[-1].any()
        assert (np.diff(curve.times) > 0.0).all()
        grid = np.linspace(0.0, curve.end_s, 400)
        path = np.array([curve.sample(t)[0] for t in grid])
        speed = np.array([curve.sample(t)[1] for t in grid])
        lower, upper = (np.array([getattr(x, k) for x in LIMITS]) for k in ("lower", "upper"))
        assert (path >= lower - 1e-6).all() and (path <= upper + 1e-6).all()
        assert (np.abs(speed) <= np.array([x.velocity for x in LIMITS]) + 1e-4).all()


def test_a_tick_on_time_changes_nothing_but_the_beginning() -> None:
    (first_ns, first), (then_ns, then) = sent_at(
        [NANOSECONDS, NANOSECONDS + PERIOD_NS], np.stack([START + 0.01, START])
    )
    left = cut(first, (then_ns - first_ns) / NANOSECONDS)
    np.testing.assert_allclose(then.positions[0], left.positions[0])
