"""The deployed faults of inputs, clocks, policies and clients: docs/reference/faults.md."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

from commanded_motion import Sent, as_received, ends_at_rest, exactly, slows_down  # noqa: E402
from deploy_helpers import Client  # noqa: E402
from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from fault_harness import ServedPolicy  # noqa: E402
from fault_policies import export_orbit  # noqa: E402
from played_robot import CUBE, GOAL, PlayedRobot, stamped_after, until  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

from grpo_ros.nodes.shared import messages, qos  # noqa: E402
from grpo_ros.robots.robot import load_robot  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(60)]
ROBOT = load_robot("franka_fr3")
PREDICTED = "policy_server/predicted_chunk"
MAX_AGE_S, PERIOD_S = 0.1, 0.05
FAR_GOAL = (CUBE[0] + 0.6, *GOAL[1:])
OK, WARN, ERROR, STALE = (
    getattr(DiagnosticStatus, key) for key in ("OK", "WARN", "ERROR", "STALE")
)


@pytest.fixture(autouse=True, scope="module")
def chunks(client: Client) -> None:
    """Hear what the policy foresees, too."""
    client.listen(JointTrajectory, PREDICTED, qos.STATE)


def assert_sound(robot: PlayedRobot, stream: list[Sent] | None = None) -> None:
    """What a stock controller makes of the stream keeps every limit, without a jump."""
    stream = robot.commands() if stream is None else stream
    assert exactly(stream, robot.limits) == []
    assert as_received(stream, robot.limits, robot.start)[1] == []
    assert ends_at_rest(stream[-1], robot.limits)


def assert_at_rest_for_good(server: ServedPolicy, robot: PlayedRobot) -> None:
    """Nothing more comes, and the arm stands, until ~/start; then it moves again."""
    until(lambda: robot.speed == 0.0, "rest")
    number, stood = len(robot.commands()), robot.position
    time.sleep(0.3)
    assert len(robot.commands()) == number
    assert np.array_equal(robot.position, stood)
    answer = server.start()
    assert answer.success, answer.message
    until(lambda: robot.speed > 0.1, "motion after ~/start")
    server.stop()


# ------------------------------------------------------------------ R2, R4: inputs that end


@pytest.mark.parametrize("lost", ["joint_states", "cube"])
def test_when_an_input_ends_it_brakes_within_a_tick_says_stale_and_stops_by_name(
    server: ServedPolicy, robot: PlayedRobot, lost: str
) -> None:
    """R2, R4: an input, or the bridge that sends it, dies."""
    server.run(robot)
    robot.silent.add(lost)
    last_ns = robot.now_ns()
    name = "fr3_joint1" if lost == "joint_states" else "cube"
    assert name in server.says(STALE, "stale", "at most 100 ms").message
    assert name in server.says(ERROR, "stale for").message
    late = stamped_after(robot.commands(), last_ns + round((MAX_AGE_S + 1.4 * PERIOD_S) * 1e9))
    assert all(slows_down(sent, robot.limits, PERIOD_S) for sent in late)
    robot.silent.clear()
    time.sleep(0.2)
    assert_at_rest_for_good(server, robot)
    assert_sound(robot)


def test_when_all_inputs_end_it_stops_by_name(server: ServedPolicy, robot: PlayedRobot) -> None:
    """R2: the whole robot is gone."""
    server.run(robot)
    robot.silent.update(["joint_states", "cube", "goal"])
    server.says(STALE)
    server.says(ERROR, "stale for")
    until(lambda: robot.speed == 0.0, "rest")
    assert_sound(robot)


def stamped(name: str, late_s: float) -> Callable[[PlayedRobot], JointState]:
    def make(robot: PlayedRobot) -> JointState:
        stamp_ns = robot.now_ns() - round(late_s * messages.NANOSECONDS)
        position = dict(zip(ROBOT.arm_joints, robot.position, strict=True)).get(name, 0.0)
        return messages.joint_state(stamp_ns, (name,), [position], [0.0])

    return make


@pytest.mark.parametrize(
    ("make", "number"),
    [
        (stamped("a_wheel", 1.7e9), 20),
        (stamped("fr3_joint1", 1.5), 20),
        (stamped("fr3_joint1", -5.0), 1),
    ],
    ids=["another joint", "a late driver", "far ahead"],
)
def test_a_joint_state_with_an_odd_stamp_is_not_used_and_the_run_goes_on(
    server: ServedPolicy,
    robot: PlayedRobot,
    make: Callable[[PlayedRobot], JointState],
    number: int,
) -> None:
    """R4: it was taken for time that begins anew, which ended the run without braking."""
    server.run(robot)
    for _ in range(number):
        robot._joints.publish(make(robot))
        time.sleep(0.01)
    periods = len(robot.commands())
    until(lambda: len(robot.commands()) > periods + 10, "commands")
    summary = server.stop()
    assert summary["phase"] == "running"
    assert (summary["held"].get("future", 0) > 0) == (number == 1)
    assert_sound(robot)


# ------------------------------------------------------------------ R3: no numbers


def poison(index: int, field: str, value: float) -> Callable[[JointState], JointState]:
    def alter(message: JointState) -> JointState:
        getattr(message, field)[index] = value
        return message

    return alter


@pytest.mark.parametrize(
    ("what", "value", "name"),
    [
        ("position", math.nan, "joint state"),
        ("velocity", math.inf, "joint state"),
        ("cube", math.nan, "cube"),
        ("goal", -math.inf, "goal"),
    ],
)
def test_inputs_that_are_no_numbers_reach_no_topic_and_are_named(
    client: Client, server: ServedPolicy, robot: PlayedRobot, what: str, value: float, name: str
) -> None:
    """R3: NaN or infinity in joint states and poses."""
    server.run(robot)
    if what in robot.poses:
        robot.poses = {**robot.poses, what: (value, *CUBE[1:])}
    else:
        robot.alter = poison(3, what, value)
    server.says(ERROR, "stale for")
    assert int(server.value("rejected.not_finite")) > 0
    assert name in server.value("rejected.last")
    assert_sound(robot)
    for message in client.heard(PREDICTED):
        assert np.isfinite([point.positions for point in message.points]).all()


def test_a_policy_that_gives_no_numbers_reaches_no_topic_and_is_named(
    server: ServedPolicy, robot: PlayedRobot, tmp_path: Path
) -> None:
    """R3: NaN from the policy, for some inputs only."""
    server.run(robot, policy=str(export_orbit(tmp_path / "nan.onnx", bad="nan")))
    robot.poses = {**robot.poses, "goal": FAR_GOAL}
    server.says(ERROR, "3 inferences in a row failed", "not finite")
    until(lambda: robot.speed == 0.0, "rest")
    assert_sound(robot)


# ------------------------------------------------------------------ R5: joints


def test_joints_in_another_order_and_beside_others_are_told_apart_by_name(
    server: ServedPolicy, robot: PlayedRobot
) -> None:
    """R5: a driver lists its joints as it likes."""

    def shuffle(message: JointState) -> JointState:
        names = [*message.name[::-1], "a_wheel"]
        return JointState(
            header=message.header,
            name=names,
            position=[*message.position[::-1], 9.0],
            velocity=[*message.velocity[::-1], 9.0],
        )

    robot.alter = shuffle
    server.run(robot)
    server.stop()
    assert_sound(robot)


def test_a_joint_that_is_missing_is_named_and_nothing_is_commanded(
    server: ServedPolicy, robot: PlayedRobot
) -> None:
    """R5: a joint less than the policy observes."""

    def drop(message: JointState) -> JointState:
        for field in ("name", "position", "velocity"):
            values = list(getattr(message, field))
            setattr(message, field, values[:4] + values[5:])
        return message

    robot.alter = drop
    server.activate()
    assert server.start().success
    server.says(OK, "waiting for inputs", "fr3_joint5")
    time.sleep(0.3)
    assert robot.commands() == []
    server.stop()


# ------------------------------------------------------------------ R6: the clock


@pytest.fixture
def simulated(client: Client) -> Iterator[PlayedRobot]:
    robot = PlayedRobot(client.node, ROBOT, has_clock=True)
    yield robot
    robot.close()


def test_a_clock_that_pauses_stops_the_commands_and_they_go_on_without_a_jump(
    server: ServedPolicy, simulated: PlayedRobot
) -> None:
    """R6: the simulation is paused."""
    server.run(simulated, use_sim_time=True)
    simulated.is_paused = True
    time.sleep(0.2)
    number = len(simulated.commands())
    server.says(WARN, "no time comes on /clock")
    assert len(simulated.commands()) <= number + 1
    simulated.is_paused = False
    until(lambda: len(simulated.commands()) > number + 20, "commands after the pause")
    assert server.stop()["phase"] == "running"
    assert_sound(simulated)


@pytest.mark.parametrize("goes_home", [False, True])
def test_after_a_clock_that_jumped_back_it_moves_nothing_until_started_where_the_arm_is(
    server: ServedPolicy, simulated: PlayedRobot, goes_home: bool
) -> None:
    """R6: the simulation begins anew, with the arm where it is or at home."""
    server.run(simulated, use_sim_time=True)
    before, start = simulated.commands(), simulated.start
    simulated.jump(-50.0)
    if goes_home:
        simulated.go_home()
    simulated.sent.clear()
    stood = simulated.position
    server.says(ERROR, "the clock jumped back")
    time.sleep(0.3)
    assert simulated.commands() == []
    assert server.start().success
    until(lambda: simulated.speed > 0.1, "motion after ~/start")
    server.stop()
    first = np.array(simulated.commands()[0].message.points[0].positions)
    np.testing.assert_allclose(first, stood, atol=1e-9)
    simulated.start = stood
    assert_sound(simulated)
    simulated.start = start
    assert exactly(before, simulated.limits) == []


# ------------------------------------------------------------------ R8: slow inference


def test_a_slow_policy_is_followed_to_its_chunks_end_then_held_with_a_warning(
    client: Client, server: ServedPolicy, robot: PlayedRobot, tmp_path: Path
) -> None:
    """R8: inference takes some control periods."""
    policy = export_orbit(tmp_path / "slow.onnx", bad="slow")
    settings = {"runner__execution__num_executed": 2, "runner__max_failures": 1000}
    server.run(robot, policy=str(policy), **settings)
    robot.poses = {**robot.poses, "goal": FAR_GOAL}
    server.says(WARN, "late: inference takes longer than 50 ms")
    assert int(server.value("held.late")) > 0
    robot.poses = {**robot.poses, "goal": GOAL}
    until(lambda: server.said() == "running", "recovery")
    summary = server.stop()
    assert summary["phase"] == "running" and summary["held"]["late"] > 0
    assert_sound(robot)
    stream = robot.commands()
    begins = [messages.to_ns(message.header.stamp) for message in client.heard(PREDICTED)]
    parts = [
        [sent for sent in stream if first <= sent.stamp_ns < then]
        for first, then in itertools.pairwise(begins)
    ]
    longest = max(parts, key=len)
    assert len(longest) > 4  # all of the chunk, though only half of it is executed otherwise
    ends = np.array([sent.message.points[-1].positions for sent in longest])
    np.testing.assert_allclose(ends, np.broadcast_to(ends[0], ends.shape), atol=1e-6)


# ------------------------------------------------------------------ R9: many clients


class Caller:
    """Another client, on a thread of its own."""

    def __init__(self, number: int) -> None:
        self.node, self.executor = Node(f"caller_{number}"), SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.clients = {
            name: self.node.create_client(Trigger, f"policy_server/{name}")
            for name in ("start", "stop")
        }
        assert all(client.wait_for_service(10.0) for client in self.clients.values())

    def call(self, name: str) -> bool:
        future = self.clients[name].call_async(Trigger.Request())
        self.executor.spin_until_future_complete(future, 10.0)
        return bool(future.result().success)

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()


def together(actions: list[Callable[[], Any]]) -> list[Any]:
    """Return what actions return that begin at once, in threads."""
    barrier, found = threading.Barrier(len(actions)), [None] * len(actions)

    def act(row: int) -> None:
        barrier.wait()
        found[row] = actions[row]()

    threads = [threading.Thread(target=act, args=(row,)) for row in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    return found


def test_of_starts_at_once_one_is_accepted_and_a_storm_ends_at_rest(
    server: ServedPolicy, robot: PlayedRobot
) -> None:
    """R9: several clients start and stop as they like."""
    server.activate()
    callers = [Caller(number) for number in range(4)]
    time.sleep(0.3)
    try:
        for _ in range(4):
            assert sorted(together([lambda c=c: c.call("start") for c in callers])) == [
                False,
                False,
                False,
                True,
            ]
            assert all(together([lambda c=c: c.call("stop") for c in callers]))

        def storm(caller: Caller, seed: int) -> None:
            random = np.random.default_rng(seed)
            for _ in range(15):
                caller.call("start" if random.random() < 0.7 else "stop")
                time.sleep(random.uniform(0.0, 0.15))

        together([lambda c=c, i=i: storm(c, i) for i, c in enumerate(callers)])
    finally:
        for caller in callers:
            caller.close()
    server.stop()
    until(lambda: robot.speed == 0.0, "rest")
    assert len(robot.commands()) > 3
    assert_sound(robot)
    assert_at_rest_for_good(server, robot)
