"""How long a policy server takes from an observation to the command that answers it, over ROS.

A real policy_server process, and this process as the robot: it publishes joint states and two
poses, all with one stamp, and listens to the commands. Both ends are Python on one machine and
read one clock. Measured are two things that have no wait for a timer in them:

- answered: in lock step, a tick comes with the last input of an observation, and the command
  carries the observation's stamp. From just before the first input is published to the command's
  arrival here: two ways over DDS, observation, inference in line, gate, message.
- tick to arrival: free running, as deployed: ticks come from the server's timer, inference runs in
  its thread, the motion's curve is drawn. From the tick's own stamp, which the command carries, to
  its arrival here: everything but the way of the inputs.

Chunks of four actions: every fourth tick infers; `with inference` are those alone, told by their
position in the chunk in lock step. What the server spends it on is measured in this process, stage
by stage, on the same policy (`stages`), and read from its diagnostics.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench import ros_helpers  # noqa: F401 - finds the tests' helpers

Row = tuple[str, str, str]
RATES_HZ = (50.0, 200.0, 500.0)
WARM_UP = 50
CUBE = (0.475, 0.0, 0.02, 0.0, 0.0, 0.0, 1.0)


def latency(num: int = 2000) -> Iterator[Row]:
    """Measure both at each rate, `num` commands each, then the stages."""
    from fault_harness import listening_client, served
    from fault_policies import export_orbit

    with tempfile.TemporaryDirectory() as name, listening_client() as client:
        folder = Path(name)
        policies = {
            rate: export_orbit(folder / f"{rate:g}.onnx", rate_hz=rate) for rate in RATES_HZ
        }
        robot = AnsweringRobot(client.node)
        with served(client, folder, policies[RATES_HZ[0]]) as server:
            for rate, policy in policies.items():
                for is_lock_step in (True, False):
                    server.activate(
                        policy=str(policy),
                        lock_step=is_lock_step,
                        runner__stop_after_s=5.0,
                        runner__max_age_s=0.5,
                    )
                    yield from _rows(robot, server, rate, is_lock_step, num)
        for rate, policy in policies.items():
            yield from stages(policy, rate)


def _rows(
    robot: AnsweringRobot, server: Any, rate: float, is_lock_step: bool, num: int
) -> Iterator[Row]:
    robot.begin(rate, is_lock_step)
    answer = server.start()
    assert answer.success, answer.message
    number = num + WARM_UP
    deadline = time.monotonic() + 3.0 * number / rate + 10.0
    while robot.num_arrived < number and time.monotonic() < deadline:
        time.sleep(0.05)
    robot.end()
    summary = server.stop()
    found = robot.delays_ms()[WARM_UP:number]
    what = "answered" if is_lock_step else "tick to arrival"
    if len(found) < num // 2:
        yield f"{rate:g} Hz: {what}", "not measured", f"{len(found)} commands; {summary}"
        return
    yield _row(f"{rate:g} Hz: {what}", found)
    if is_lock_step:
        yield _row(f"{rate:g} Hz: {what}, with inference", found[robot.with_inference()])
    else:
        inferred = [server.value(f"inference_ms.p{q}") for q in ("50", "99")]
        yield f"{rate:g} Hz: inference, by the server", f"{inferred[0]} ms", f"p99 {inferred[1]}"
        held = ", ".join(f"{kind} {count}" for kind, count in summary["held"].items()) or "none"
        yield f"{rate:g} Hz: held ticks", held, f"{summary['periods']} periods"


def _row(what: str, values_ms: np.ndarray) -> Row:
    p50, p99 = np.quantile(values_ms, [0.5, 0.99])
    return what, f"p50 {p50:.2f} ms", f"p99 {p99:.2f}, max {values_ms.max():.2f} ms"


class AnsweringRobot:
    """The robot's side: publishes at a rate, and keeps when each stamp went out and came back."""

    def __init__(self, node: Any) -> None:
        from geometry_msgs.msg import PoseStamped
        from sensor_msgs.msg import JointState
        from trajectory_msgs.msg import JointTrajectory

        from grpo_ros.nodes import qos
        from grpo_ros.robots.robot import load_robot

        self.node, self.robot = node, load_robot("franka_fr3")
        names = self.robot.interfaces
        self._joints = node.create_publisher(JointState, names.joint_states, qos.STATE)
        self._poses = [
            node.create_publisher(PoseStamped, f"objects/{name}/pose", qos.STATE)
            for name in ("cube", "goal")
        ]
        node.create_subscription(
            JointTrajectory, names.arm_trajectory_topic, self._on_command, qos.STATE
        )
        self._stopping, self._thread = threading.Event(), threading.Thread()
        self._clear()

    def begin(self, rate_hz: float, is_lock_step: bool) -> None:
        """Publish at a rate; free running at twice that, so that an observation is never old."""
        self._clear()
        self._is_lock_step = is_lock_step
        self._period_s = 1.0 / rate_hz if is_lock_step else 0.5 / rate_hz
        self._stopping.clear()
        self._thread = threading.Thread(target=self._publish, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Publish no more."""
        self._stopping.set()
        self._thread.join(5.0)

    @property
    def num_arrived(self) -> int:
        """How many commands came."""
        return len(self._arrived)

    def delays_ms(self) -> np.ndarray:
        """Return each command's delay, in the order of arrival."""
        sent = self._sent if self._is_lock_step else {}
        return np.array([(at - sent.get(stamp, stamp)) / 1e6 for stamp, at in self._arrived])

    def with_inference(self) -> slice:
        """Return which delays, after the warm-up, have an inference in them: one in four."""
        return slice(-WARM_UP % 4, None, 4)

    def _clear(self) -> None:
        self._sent: dict[int, int] = {}
        self._arrived: list[tuple[int, int]] = []
        self._position = self.robot.home.numpy().copy()
        self._is_lock_step, self._period_s = True, 0.02

    def _on_command(self, message: Any) -> None:
        now_ns = time.time_ns()
        stamp = message.header.stamp
        self._arrived.append((stamp.sec * 10**9 + stamp.nanosec, now_ns))
        row = 0 if self._is_lock_step else min(1, len(message.points) - 1)
        self._position[:7] = message.points[row].positions

    def _publish(self) -> None:
        from grpo_ros.nodes.shared import messages

        names, still = self.robot.joint_names, np.zeros(8)
        due = time.monotonic()
        while not self._stopping.is_set():
            stamp = time.time_ns()
            self._sent[stamp] = stamp
            for publisher in self._poses:
                publisher.publish(messages.pose(stamp, self.robot.base_frame, CUBE))
            self._joints.publish(messages.joint_state(stamp, names, self._position, still))
            due = max(due + self._period_s, time.monotonic() - self._period_s)
            time.sleep(max(0.0, due - time.monotonic()))


def stages(policy: Path, rate: float, num: int = 2000) -> Iterator[Row]:
    """Take the CPU time of what a tick consists of, on an arm that follows its commands."""
    from grpo_ros.controllers import make_controller
    from grpo_ros.deployment.policy_runner import PolicyRunner
    from grpo_ros.deployment.runner_config import RunnerConfig
    from grpo_ros.deployment.safety.faults import FaultConfig
    from grpo_ros.export.policy_file import load_policy_file
    from grpo_ros.nodes.shared import messages
    from grpo_ros.robots.robot import load_robot

    served, robot = load_policy_file(policy), load_robot("franka_fr3")
    spent: dict[str, list[float]] = {}

    def timed(what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        kept = spent.setdefault(what, [])

        def run(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            answer = call(*args, **kwargs)
            kept.append(time.thread_time() - began)
            return answer

        return run

    controller = make_controller(served.contract, robot)
    infer = timed("inference", served.infer)
    config = RunnerConfig(faults=FaultConfig(watch_torque=False))  # nobody reports torques here
    runner = PolicyRunner(served.contract, infer, robot, controller, config)
    runner.buffer.read = timed("read the buffer", runner.buffer.read)  # type: ignore[method-assign]
    runner.input.assemble = timed("assemble the observation", runner.input.assemble)  # type: ignore[assignment]
    runner.executor.load = timed("roll a chunk", runner.executor.load)  # type: ignore[method-assign]
    runner.gate.admit = timed("gate", runner.gate.admit)  # type: ignore[method-assign]
    tick = timed("tick, all of it", runner.tick)
    to_message = timed("build the message", messages.curve_trajectory)
    period_ns, position = round(1e9 / rate), robot.home.numpy().copy()
    runner.start()
    for number in range(num):
        now_ns = (number + 1) * period_ns
        for body in ("cube", "goal"):
            runner.buffer.put_pose(now_ns, body, robot.base_frame, CUBE[:3], CUBE[3:])
        runner.buffer.put_joint_state(now_ns, robot.joint_names, position, np.zeros(8))
        motion = tick(now_ns)
        if motion.curve is not None:
            to_message(now_ns, motion.names, motion.curve)
        if len(motion.points):
            position[:7] = motion.points[0]
    for what, seconds in spent.items():
        values = np.array(seconds[WARM_UP:]) * 1e6
        share = values.sum() / (1e6 * sum(spent["tick, all of it"][WARM_UP:]))
        p50, p99 = np.quantile(values, [0.5, 0.99])
        spread = f"p99 {p99:.0f} us; {share:.0%} of all ticks' time, {len(values)} times"
        yield f"{rate:g} Hz in process: {what}", f"p50 {p50:.0f} us", spread
