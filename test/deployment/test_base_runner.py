"""The policy runner with a base: stretched time and missed ticks, in twists."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from grpo_ros.controllers import make_controller
from grpo_ros.deployment.policy_runner import Command, PolicyRunner
from grpo_ros.deployment.runner_config import RunnerConfig
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


def tick(runner: PolicyRunner, period: float) -> Command:
    """Tick at a time, in periods from the start, with a base that is seen at its start."""
    now_ns = 1_000_000_000 + round(period * runner.period_s * 1e9)
    names = runner.buffer.joint_names
    runner.buffer.put_joint_state(now_ns, names, np.zeros(len(names)), np.zeros(len(names)))
    for body in runner.buffer.body_names:
        runner.buffer.put_pose(
            now_ns, body, ROBOT.base_frame, (1.0, 0.5, 0.0), (0.0, 0.0, 0.0, 1.0)
        )
    answer = runner.tick(now_ns)
    assert isinstance(answer, Command), answer
    return answer


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
