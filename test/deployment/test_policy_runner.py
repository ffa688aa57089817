"""The policy runner: receding horizon, holding, stopping, and nothing old on the wire."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from deployment_fakes import (
    ARM,
    FINGER,
    MS,
    PERIOD_NS,
    ROBOT,
    AddingController,
    home,
    make_contract,
)

from grpo_ros.deployment.chunk_executor import ChunkExecutor
from grpo_ros.deployment.policy_runner import Command, Hold, PolicyRunner
from grpo_ros.deployment.runner_config import RunnerConfig
from grpo_ros.errors import PolicyFileError

NAMES = (*ARM, FINGER)
Obs = Mapping[str, np.ndarray[Any, Any]]


class Script:
    """A policy that gives the same chunk each time and keeps what it saw."""

    def __init__(self, chunk: np.ndarray[Any, Any] | None = None) -> None:
        self.chunk = np.zeros((1, 4, 8), dtype=np.float32) if chunk is None else chunk
        self.seen: list[Obs] = []

    def __call__(self, obs: Obs) -> np.ndarray[Any, Any]:
        self.seen.append(obs)
        return self.chunk


def make_runner(policy: Script, **config: Any) -> PolicyRunner:
    runner = PolicyRunner(
        make_contract(), policy, ROBOT, AddingController(), RunnerConfig(**config)
    )
    runner.start()
    return runner


def feed(runner: PolicyRunner, stamp_ns: int, position: np.ndarray | None = None) -> None:
    position = home() if position is None else position
    runner.buffer.put_joint_state(stamp_ns, NAMES, position, np.zeros(8))
    runner.buffer.put_pose(stamp_ns, "cube", "base", (0.5, 0.0, 0.02), (0.0, 0.0, 0.0, 1.0))


def run(runner: PolicyRunner, num: int, first: int = 0) -> list[Command | Hold]:
    answers = []
    for i in range(first, first + num):
        feed(runner, i * PERIOD_NS)
        answers.append(runner.tick(i * PERIOD_NS))
    return answers


def slow_chunk() -> np.ndarray[Any, Any]:
    chunk = np.zeros((1, 4, 8), dtype=np.float32)
    chunk[0, :, 0] = [0.1, 0.2, 0.3, 0.4]
    chunk[0, :, 7] = [1.0, -1.0, -1.0, -1.0]
    return chunk


def test_it_infers_once_per_executed_chunk_and_sends_all_targets_still_to_come() -> None:
    policy = Script(slow_chunk())
    commands = run(make_runner(policy), 5)
    assert [type(command) for command in commands] == [Command] * 5
    assert [command.num_asked for command in commands] == [4, 3, 4, 3, 4]
    assert [command.is_new_chunk for command in commands] == [True, False, True, False, True]
    assert len(policy.seen) == 3
    assert np.array_equal(commands[0].points[1:], commands[1].points)
    assert commands[1].is_known and not commands[2].is_known


def test_last_action_is_the_clipped_action_executed_last() -> None:
    chunk = slow_chunk()
    chunk[0, 1, 3] = -3.0
    policy = Script(chunk)
    run(make_runner(policy), 3)
    assert not policy.seen[0]["last"].any()
    expected = np.clip(chunk[0, 1], -1.0, 1.0)
    assert np.array_equal(policy.seen[1]["last"][0], expected)


def test_the_gripper_is_commanded_only_when_its_command_changes() -> None:
    commands = run(make_runner(Script(slow_chunk())), 4)
    targets = [command.gripper and command.gripper.position for command in commands]
    assert targets == [0.04, 0.0, 0.04, 0.0]
    steady = run(make_runner(Script()), 4)
    assert [command.gripper is not None for command in steady] == [True, False, False, False]


def test_the_first_command_starts_from_the_measured_position() -> None:
    runner = make_runner(Script())
    measured = home() + 0.01
    feed(runner, 0, measured)
    command = runner.tick(0)
    assert isinstance(command, Command)
    assert np.array_equal(command.points[0], measured[:7])


def test_a_run_does_not_know_what_the_run_before_observed() -> None:
    runner = make_runner(Script())
    run(runner, 2)
    assert runner.reading is not None
    runner.stop()
    runner.start()
    assert runner.reading is None


def test_before_start_and_without_inputs_it_commands_nothing() -> None:
    runner = PolicyRunner(make_contract(), Script(), ROBOT, AddingController())
    answer = runner.tick(0)
    assert isinstance(answer, Hold) and answer.kind == "holding" and len(answer.points) == 0
    runner.start()
    answer = runner.tick(0)
    assert isinstance(answer, Hold) and answer.kind == "missing" and len(answer.points) == 0


def test_stale_observations_hold_and_then_stop_the_policy() -> None:
    chunk = slow_chunk()
    chunk[0, :, 0] = [0.5, 1.0, 1.0, 1.0]
    runner = make_runner(Script(chunk), stop_after_s=0.2)
    run(runner, 4)
    answers = [runner.tick((4 + i) * PERIOD_NS) for i in range(9)]
    holds = [answer for answer in answers if isinstance(answer, Hold)]
    assert [hold.kind for hold in holds] == ["stale"] * 5 + ["stopped"] * 2
    assert "joint" in holds[0].reason and runner.phase == "stopped"
    assert runner.gate.is_open is False and len(holds[-1].points) == 0


def test_after_a_hold_it_goes_on_from_where_the_arm_came_to_rest() -> None:
    runner = make_runner(Script(slow_chunk()))
    run(runner, 2)
    held = [runner.tick(1 * PERIOD_NS + 101 * MS + i * PERIOD_NS) for i in range(3)]
    assert all(isinstance(hold, Hold) for hold in held)
    rest = runner.gate.position
    feed(runner, 6 * PERIOD_NS)
    command = runner.tick(6 * PERIOD_NS)
    assert isinstance(command, Command) and command.num_asked == 4
    assert np.allclose(command.points[0] - rest, [0.002, 0, 0, 0, 0, 0, 0], atol=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_policy_that_gives_no_numbers_is_held_and_stopped(bad: float) -> None:
    policy = Script(slow_chunk())
    runner = make_runner(policy, max_failures=2)
    run(runner, 2)
    policy.chunk = np.full((1, 4, 8), bad, dtype=np.float32)
    first, second = run(runner, 2, first=2)
    assert isinstance(first, Hold) and first.kind == "inference" and "finite" in first.reason
    assert isinstance(second, Hold) and second.kind == "stopped"


def test_a_policy_that_raises_is_held() -> None:
    def broken(obs: Obs) -> np.ndarray[Any, Any]:
        raise RuntimeError("out of memory")

    runner = PolicyRunner(make_contract(), broken, ROBOT, AddingController())
    runner.start()
    (answer,) = run(runner, 1)
    assert isinstance(answer, Hold) and "out of memory" in answer.reason


def test_nothing_made_before_a_stop_or_a_hold_may_be_sent_after_it() -> None:
    runner = make_runner(Script(slow_chunk()))
    (command,) = run(runner, 1)
    assert isinstance(command, Command) and runner.may_send(command)
    runner.tick(PERIOD_NS)
    assert not runner.may_send(command)
    (command,) = run(runner, 1, first=2)
    assert isinstance(command, Command)
    runner.stop()
    assert not runner.may_send(command)
    runner.start()
    assert not runner.may_send(command)


def test_stopping_in_motion_brakes_to_rest() -> None:
    chunk = np.zeros((1, 4, 8), dtype=np.float32)
    chunk[0, :, 0] = 1.0
    runner = make_runner(Script(chunk))
    run(runner, 6)
    points = runner.stop().points
    assert len(points) >= 1
    steps = np.diff(points[:, 0])
    assert (np.abs(np.diff(steps)) <= 10.0 * 0.05**2 + 1e-9).all()
    assert runner.phase == "stopped" and len(runner.stop().points) == 0


def test_the_horizon_ends_the_episode() -> None:
    answers = run(make_runner(Script()), 52)
    assert [isinstance(answer, Command) for answer in answers[:50]] == [True] * 50
    assert isinstance(answers[50], Hold) and answers[50].kind == "finished"


def test_the_same_inputs_give_the_same_commands() -> None:
    first, second = (run(make_runner(Script(slow_chunk())), 9) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        assert one.points.tobytes() == two.points.tobytes()


@pytest.mark.parametrize("shape", [(1, 3, 8), (2, 4, 8), (1, 4, 7), (4,)])
def test_chunks_of_another_shape_are_refused_and_change_nothing(shape: tuple[int, ...]) -> None:
    runner = PolicyRunner(make_contract(), Script(np.zeros(shape)), ROBOT, AddingController())
    with pytest.raises(PolicyFileError, match="shape"):
        runner.warm_up()
    executor = ChunkExecutor(make_contract(), AddingController())
    with pytest.raises(PolicyFileError):
        executor.load(np.zeros(shape))
    assert executor.needs_inference


def feed_joint(runner: PolicyRunner, stamp_ns: int, position: float, velocity: float) -> None:
    """Feed home but for the first joint."""
    positions, velocities = home(), np.zeros(8)
    positions[0], velocities[0] = position, velocity
    runner.buffer.put_joint_state(stamp_ns, NAMES, positions, velocities)
    runner.buffer.put_pose(stamp_ns, "cube", "base", (0.5, 0.0, 0.02), (0.0, 0.0, 0.0, 1.0))


@pytest.mark.parametrize(
    ("position", "velocity", "reason"),
    [
        (0.0, 1e6, "moves at 1e+06/s"),
        (0.0, -0.5, "moves at -0.5/s"),
        (50.0, 0.0, "is at 50, beyond its limits"),
    ],
)
def test_where_the_arm_cannot_stand_no_run_begins(
    position: float, velocity: float, reason: str
) -> None:
    """Regression: one wrong number of a sensor was commanded, as the point that all begins at."""
    runner = make_runner(Script(slow_chunk()))
    feed_joint(runner, 0, position, velocity)
    answer = runner.tick(10 * MS)
    assert isinstance(answer, Hold) and answer.kind == "moving" and not len(answer.points)
    assert f"joint '{ARM[0]}' {reason}" in answer.reason
    feed_joint(runner, 10 * MS, 0.0, 0.0)
    assert isinstance(runner.tick(10 * MS + PERIOD_NS), Command)


def test_an_arm_within_its_limits_may_begin_however_wide_the_margin_is() -> None:
    runner = make_runner(Script(), position_margin=0.5)
    limit = runner.contract.limits[0]
    feed_joint(runner, 0, limit.upper - 0.01, 0.0)
    command = runner.tick(0)
    assert isinstance(command, Command) and command.points[0, 0] == limit.upper - 0.01


def test_a_run_begins_at_what_is_measured_not_where_a_velocity_would_lead() -> None:
    runner = make_runner(Script(), extrapolates=True)
    feed_joint(runner, 0, 0.0, 0.15)
    command = runner.tick(40 * MS)
    assert isinstance(command, Command)
    assert np.array_equal(command.points[0], [0.0, *home()[1:7]])


def test_a_run_that_cannot_begin_is_over_after_a_while() -> None:
    """Regression: the arm moved as soon as an input came back, however long after the start."""
    runner = make_runner(Script(), begin_timeout_s=0.5)
    answers = [runner.tick(i * PERIOD_NS) for i in range(12)]
    assert [answer.kind for answer in answers if isinstance(answer, Hold)] == (
        ["missing"] * 11 + ["stopped"]
    )
    assert "missing for 0.55 s" in runner.reason
    feed(runner, 12 * PERIOD_NS)
    assert isinstance(runner.tick(12 * PERIOD_NS), Hold)


def test_at_a_share_of_the_speed_no_target_is_followed_faster_than_that() -> None:
    """Regression: what was far off was caught up with at full speed."""
    runner = make_runner(Script(), speed=0.1)
    feed(runner, 0)
    runner.tick(0)
    gate, far = runner.gate, home()[None, :7].copy()
    far[0, 0] += 0.5
    places = np.array([gate.admit(gate.joint_names, far).points[0, 0] for _ in range(5)])
    fastest = np.abs(np.diff(places)).max() / gate.period_s
    assert fastest == pytest.approx(0.1 * runner.contract.limits[0].velocity)
