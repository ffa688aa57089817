"""The policy runner with a base: stretched time and missed ticks, in twists."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from grpo_ros.controllers import make_controller
from grpo_ros.deployment.answers import Command, Hold
from grpo_ros.deployment.policy_runner import PolicyRunner
from grpo_ros.deployment.runner_config import RunnerConfig
from grpo_ros.deployment.safety.curve import Array, Curve
from grpo_ros.deployment.safety.faults import FaultConfig
from grpo_ros.deployment.safety.twist_gate import TwistGate
from grpo_ros.tasks.navigate import Navigate, NavigateConfig

TASK = Navigate(NavigateConfig())
ROBOT = TASK.robot
FIELDS = tuple(f for f in TASK.contract().observation if f.source.kind != "scan")
CONTRACT = dataclasses.replace(TASK.contract(), observation=FIELDS)
Obs = Mapping[str, np.ndarray[Any, Any]]


def full_ahead(obs: Obs) -> np.ndarray[Any, Any]:
    """Return a chunk that drives as fast as it may, turning a little."""
    chunk = np.ones((1, CONTRACT.chunk_size, 2), dtype=np.float32)
    chunk[..., 1] = 0.25
    return chunk


def make_runner(**config: Any) -> PolicyRunner:
    runner = PolicyRunner(
        CONTRACT, full_ahead, ROBOT, make_controller(CONTRACT, ROBOT), RunnerConfig(**config)
    )
    runner.start()
    return runner


def at(runner: PolicyRunner, period: float) -> int:
    """Return a time, ns, in periods from the start."""
    return 1_000_000_000 + round(period * runner.period_s * 1e9)


def answer(runner: PolicyRunner, period: float) -> Command | Hold:
    """Tick at a time, in periods from the start, with a base that is seen at its start."""
    now_ns = at(runner, period)
    names = runner.buffer.joint_names
    runner.buffer.put_joint_state(now_ns, names, np.zeros(len(names)), np.zeros(len(names)))
    for body in runner.buffer.body_names:
        runner.buffer.put_pose(
            now_ns, body, ROBOT.base_frame, (1.0, 0.5, 0.0), (0.0, 0.0, 0.0, 1.0)
        )
    return runner.tick(now_ns)


def tick(runner: PolicyRunner, period: float) -> Command:
    """Tick as `answer` does, where that gives a command."""
    command = answer(runner, period)
    assert isinstance(command, Command), command
    return command


def test_at_a_share_of_the_speed_a_base_drives_the_same_path_so_much_slower() -> None:
    whole, tenth = make_runner(), make_runner(speed=0.1)
    for period in range(12):
        fast, slow = tick(whole, period), tick(tenth, period)
        assert not fast.interventions and not slow.interventions
        np.testing.assert_allclose(
            slow.points[: slow.num_asked], 0.1 * fast.points[: fast.num_asked], atol=1e-12
        )
    assert fast.points[0, 0] == pytest.approx(CONTRACT.action[0].scale[0])
    assert tenth.period_s == pytest.approx(10.0 * whole.period_s)


def test_the_gate_caps_a_bases_twists_at_the_share_of_the_speed() -> None:
    whole, tenth = make_runner().gate, make_runner(speed=0.1).gate
    assert isinstance(whole, TwistGate) and isinstance(tenth, TwistGate)
    np.testing.assert_allclose(tenth.speed, 0.1 * whole.speed)
    np.testing.assert_allclose(tenth.step / tenth.period_s, whole.step / whole.period_s)


def test_after_missed_ticks_a_base_goes_on_from_what_it_does_by_then() -> None:
    """What was sent has braked to a standstill; the next motion begins there, without a jump."""
    runner = make_runner()
    for period in range(12):
        before = tick(runner, period)
    curve = before.curve
    assert curve is not None and before.points[0, 0] > 0.1
    missed = len(before.points) + 5
    after = tick(runner, 11 + missed)
    assert after.curve is not None
    np.testing.assert_allclose(after.curve.velocities[0], curve.sample(100.0)[1], atol=1e-9)
    assert not after.curve.velocities[0].any()


def test_after_one_missed_tick_a_base_goes_on_along_what_was_sent() -> None:
    runner = make_runner()
    for period in range(12):
        before = tick(runner, period)
    after = tick(runner, 13.1)
    assert before.curve is not None and after.curve is not None
    np.testing.assert_allclose(after.curve.velocities[0], before.points[1], atol=1e-12)


def assert_brakes(braking: Curve, twist: Array, runner: PolicyRunner) -> None:
    """Check that a motion leads from a twist to a standstill within the acceleration."""
    assert isinstance(runner.gate, TwistGate)
    np.testing.assert_allclose(braking.velocities[0], twist, atol=1e-9)
    assert not braking.velocities[-1].any()
    most = runner.gate.step / runner.period_s * np.diff(braking.times)[:, None]
    assert (np.abs(np.diff(braking.velocities, axis=0)) <= most + 1e-9).all()


@pytest.mark.parametrize("after", [0.0, 0.1, 0.5, 0.9, 1.3, 1.6])
@pytest.mark.parametrize("period", [0, 2, 7])
def test_a_stop_between_ticks_brakes_from_the_twist_that_the_base_has_then(
    period: int, after: float
) -> None:
    """Regression: from that of the period's end, a step of 0.135 m/s as it accelerates."""
    runner = make_runner()
    for number in range(period + 1):
        before = tick(runner, number)
    now_ns = at(runner, period + after)
    braking = runner.lay(runner.stop(now_ns=now_ns), now_ns)
    assert before.curve is not None and braking is not None
    assert_brakes(braking, before.curve.sample(after * runner.period_s)[1], runner)


def test_a_fault_between_ticks_brakes_from_the_twist_that_the_base_has_then() -> None:
    """The enable switch is let go, which is not waited for."""
    runner = make_runner(faults=FaultConfig(enable_topic="enable", enable_timeout_s=60.0))
    runner.faults.put_enable(True, 0.0)
    for number in range(3):
        before = tick(runner, number)
    runner.faults.put_enable(False, 1.0)
    hold = answer(runner, 2.2)
    assert isinstance(hold, Hold) and hold.kind == "enable"
    assert before.curve is not None and hold.curve is not None
    assert_brakes(hold.curve, before.curve.sample(0.2 * runner.period_s)[1], runner)


def test_a_run_that_follows_another_waits_until_the_base_stands() -> None:
    """Regression: it began at a standstill at once, a step of 0.45 m/s: a goal after another."""
    runner = make_runner()
    for number in range(12):
        tick(runner, number)
    now_ns = at(runner, 11)
    braking = runner.lay(runner.stop("the goal is reached", "finished", now_ns), now_ns)
    assert braking is not None and braking.end_s > 3.0 * runner.period_s
    runner.start(now_ns + 1)
    for number in range(12, 12 + round(braking.end_s / runner.period_s) - 1):
        hold = answer(runner, number)
        assert isinstance(hold, Hold) and hold.kind == "moving" and not len(hold.points)
    first = tick(runner, number + 1)
    assert first.curve is not None and not first.curve.velocities[0].any()
    assert not braking.sample((first.stamp_ns - now_ns) / 1e9)[1].any()
