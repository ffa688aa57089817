"""Replay: a recorded bag through the same inputs, runner and safety gate; nothing is sent.

Deterministic, in line, and without ROS running. A bag of our black box is ticked as it was
recorded; another one at the stamps of the commands in it, or else at the control rate on the
stamps of its inputs, from the first complete observation on.

    grpo-ros replay-bag FOLDER --policy FILE.onnx --set runner.speed=0.1
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grpo_ros.configuration import Layer, merge
from grpo_ros.controllers import make_controller
from grpo_ros.deployment.answers import Hold, Motion
from grpo_ros.deployment.inputs.observation_buffer import NotReady
from grpo_ros.deployment.matching import check_match, trained_robot
from grpo_ros.deployment.policy_runner import PolicyRunner
from grpo_ros.export.policy_file import PolicyFile, load_policy_file
from grpo_ros.nodes.inputs.observation_inputs import ObservationInputs
from grpo_ros.nodes.inputs.transform_tree import TF, TF_STATIC
from grpo_ros.nodes.recording.bags import Bag, BagError, Recorded
from grpo_ros.nodes.recording.black_box import EVENTS, TICKS
from grpo_ros.nodes.recording.local_node import LocalNode
from grpo_ros.nodes.recording.replayed import Clock, Difference, Replayed
from grpo_ros.nodes.serving.command_output import command_name
from grpo_ros.nodes.serving.command_stream import MOTION
from grpo_ros.nodes.serving.fault_inputs import FaultInputs
from grpo_ros.nodes.serving.policy_config import PolicyServerConfig, runner_settings
from grpo_ros.nodes.serving.trajectory_output import GOAL, TRAJECTORY, as_trajectory
from grpo_ros.nodes.shared import messages
from grpo_ros.overrides import insert, parse_override
from grpo_ros.robots.robot import load_robot


def replay_bag(path: Path, policy_path: Path, overrides: Sequence[str] = ()) -> Replayed:
    """Run a policy on a recorded bag.

    Args:
        path: of the bag.
        policy_path: of the policy, which may be another than the recorded one.
        overrides: `key=value` of the policy server's parameters, above those in the bag.

    Raises:
        BagError: the bag is missing, damaged, or lacks a topic that the policy needs.
        GrpoRosError: the policy, the robot or a setting is refused, as by the policy server.
    """
    with Bag(path) as bag:
        config = replay_config(bag, policy_path, overrides)
        policy = load_policy_file(policy_path, config.providers)
        replay = Replay(bag, policy, config)
        result = replay.run()
    recorded = bag.about.get("policy_sha256")
    if recorded and recorded != hashlib.sha256(policy_path.read_bytes()).hexdigest():
        note = f"the bag was recorded with another policy: {recorded}"
        return dataclasses.replace(result, notes=(*result.notes, note))
    return result


def replay_config(bag: Bag, policy: Path, overrides: Sequence[str] = ()) -> PolicyServerConfig:
    """Return the policy server's parameters: those in the bag, and above them the overrides.

    Raises:
        BagError: those in the bag are of another version.
        ConfigurationError: an override is not usable.
    """
    try:
        recorded = json.loads(bag.about.get("settings", "{}"))
        layers = [Layer("the bag", recorded if isinstance(recorded, dict) else {})]
        merge(PolicyServerConfig, layers)
    except ValueError as problem:
        raise BagError(f"{bag.path}: its settings are no JSON ({problem})") from problem
    given: dict[str, Any] = {}
    for text in overrides:
        insert(given, *parse_override(PolicyServerConfig, text, {}, {}))
    return merge(
        PolicyServerConfig,
        [*layers, Layer("command line", given), Layer("replay", {"policy": str(policy)})],
    )


class Replay:
    """One replay of one bag.

    Args:
        bag: open.
        policy: that decides.
        config: as of the policy server.

    Raises:
        BagError: a topic that the policy needs is absent or of another type; names all.
    """

    def __init__(self, bag: Bag, policy: PolicyFile, config: PolicyServerConfig) -> None:
        self.bag, contract = bag, policy.contract
        self.node = LocalNode(bag.about.get("node", "/policy_server"))
        self._ticks, self._events = f"{self.node.name}/{TICKS}", f"{self.node.name}/{EVENTS}"
        self.is_whole = any(
            item.message.message == "start" for item in bag.messages([self._events])
        )
        if not self.is_whole:
            config = dataclasses.replace(config, dry_run=True)
        self.config = config
        self.robot = load_robot(config.robot) if config.robot else trained_robot(contract)
        check_match(contract, self.robot)
        self.runner = runner = PolicyRunner(
            contract,
            policy.infer,
            self.robot,
            make_controller(contract, self.robot),
            runner_settings(config),
        )
        runner.warm_up()
        self.inputs = ObservationInputs(
            self.node,
            contract,
            self.robot,
            runner.buffer,
            config.inputs,
            self._on_input,
            config.lock_step,
            None if config.hardware else self._on_jump_back,
            steady=self._steady,
        )
        self.fault_inputs = FaultInputs(
            self.node,
            self.robot,
            runner.config.faults,
            runner.faults,
            lambda: None,
            steady=self._steady,
        )
        self._check_topics()
        self._find_commands()
        self._period_ns = round(runner.period_s * messages.NANOSECONDS)
        self._now_s, self._last_tick_ns = 0.0, -1
        self._first_ns: int | None = None
        self._clock_ns, self._next_ns = -1, -1
        self._runs = self._num_ticks = self._num_commands = 0
        self._held: Counter[str] = Counter()
        self._ended: list[str] = []
        self._found: list[tuple[float, str, str]] = []
        self._sent: list[Any] = []
        self._made: dict[int, list[Any]] = {}

    # ---------------------------------------------------------------- what there is

    def _check_topics(self) -> None:
        problems = []
        for topic, kind in (*self.inputs.topics(), *self.fault_inputs.topics()):
            found = self.bag.topics.get(topic)
            if found is None and topic != TF_STATIC:
                problems.append(f"no '{topic}' ({kind})")
            elif found is not None and found != kind:
                problems.append(f"'{topic}' is {found}, not {kind}")
        if problems:
            held = ", ".join(self.bag.topics) or "no topic"
            raise BagError(
                f"{self.bag.path} does not hold what the policy needs: {'; '.join(problems)}",
                expected="all of it, as the policy server listens to it",
                remedy=f"name its topics with --set inputs...; it has {held}",
            )

    def _find_commands(self) -> None:
        """Find the topics with the trajectories that were sent, and where ticks come from."""
        kind = self.config.command or self.robot.interfaces.arm_command
        name = self.node.resolve_topic_name(command_name(self.robot, kind))
        candidates = (name, name + GOAL, name + MOTION)
        self._sent_topics = {t for t in candidates if self.bag.topics.get(t) == TRAJECTORY}
        is_topic = self.config.lock_step and kind == "trajectory_topic"
        self._sent_period_ns = (
            round(self.runner.period_s * messages.NANOSECONDS) if is_topic else None
        )
        self.clock: Clock = "rate"
        if self._ticks in self.bag.topics:
            self.clock = "recorded"
        elif self._sent_topics:
            self.clock = "commands"

    # ---------------------------------------------------------------- the replay

    def run(self) -> Replayed:
        """Replay the whole bag.

        Raises:
            BagError: it is damaged.
        """
        if not self.is_whole:
            self._begin()
        topics = {topic for topic, _ in (*self.inputs.topics(), *self.fault_inputs.topics())}
        topics |= {TF, TF_STATIC, self._ticks, self._events, *self._sent_topics}
        for item in self.bag.messages(topics):
            self._now_s = item.log_ns / messages.NANOSECONDS
            self._take(item)
        if self.clock == "rate" and 0 <= self._next_ns <= self._clock_ns:
            self._tick(self._next_ns)
        window = self.runner.decider.inference_time.quantiles()
        return Replayed(
            self.clock,
            self.is_whole,
            self._runs,
            self._num_ticks,
            self._num_commands,
            dict(self._held),
            tuple(self._ended),
            tuple(self._found),
            {share: 1e3 * value for share, value in window.items()},
            dict(self.runner.buffer.rejected),
            self._compare() if self._sent_topics else None,
            self._notes(),
        )

    def _take(self, item: Recorded) -> None:
        if item.topic == self._ticks:
            self._tick(messages.to_ns(item.message))
        elif item.topic == self._events:
            self._on_event(item.message)
        elif item.topic in self._sent_topics:
            self._sent.append(item.message)
            stamp_ns = messages.to_ns(item.message.header.stamp)
            if self.clock == "commands" and stamp_ns > self._last_tick_ns:
                self._tick(stamp_ns)
        else:
            self._deliver(item)

    def _deliver(self, item: Recorded) -> None:
        header = getattr(item.message, "header", None)
        stamp_ns = -1 if header is None else messages.to_ns(header.stamp)
        is_timed = self.clock == "rate" and not self.config.lock_step
        while is_timed and self._is_running() and 0 <= self._next_ns < stamp_ns:
            self._tick(self._next_ns)
            self._next_ns += self._period_ns
        try:
            self.node.deliver(item.topic, item.message)
        except Exception as problem:  # noqa: BLE001 - as the policy server, which stops there
            self.runner.stop(f"{item.topic}: {type(problem).__name__}: {problem}")
            self._ended.append(self.runner.reason)
        self._clock_ns = max(self._clock_ns, stamp_ns)
        if is_timed and self._next_ns < 0:
            limit_s = self.runner.config.max_age_s or None
            if not isinstance(self.runner.buffer.read(self._clock_ns, limit_s), NotReady):
                self._next_ns = self._clock_ns

    def _on_input(self) -> None:
        """Lock step without recorded ticks: tick once on each new stamp that all inputs share."""
        if self.clock != "rate" or not self.config.lock_step:
            return
        stamp_ns = self.runner.buffer.aligned_ns()
        if stamp_ns is not None and stamp_ns > self._last_tick_ns:
            self._tick(stamp_ns)

    def _on_jump_back(self) -> None:
        """Do as the policy server does."""
        self.inputs.forget()
        self._last_tick_ns = self._clock_ns = self._next_ns = -1
        if not self.config.lock_step and self._is_running():
            self.runner.jump_back()
            self._ended.append(self.runner.reason)

    def _on_event(self, message: Any) -> None:
        values = {pair.key: pair.value for pair in message.values}
        if message.message == "start":
            self.runner.input.run = int(values["run"]) - 1  # which decides a policy's noise
            due = values.get("tick_ns")
            self._begin(int(values["not_before_ns"]), None if due is None else int(due))
        elif self._is_running():
            self._ended.append(f"in the recording: {values.get('reason', 'stopped')}")
            self._halt()

    def _halt(self) -> None:
        """Stop as the policy server did; the last command before that was the braking."""
        stamp_ns = messages.to_ns(self._sent[-1].header.stamp) if self._sent else -1
        is_known = not self.config.lock_step and stamp_ns >= self._last_tick_ns
        braking = self.runner.stop(self._ended[-1], "holding", stamp_ns if is_known else None)
        if is_known and len(braking.points):
            names, curve = self.runner.gate.joint_names, self.runner.lay(braking, stamp_ns)
            self._keep(Motion(0, 0, stamp_ns, names, braking.points, curve))

    def _is_running(self) -> bool:
        return self.runner.phase == "running"

    def _begin(self, not_before_ns: int = 0, tick_ns: int | None = None) -> None:
        self.runner.start(not_before_ns, tick_ns)
        self._runs += 1

    def _tick(self, now_ns: int) -> None:
        runner = self.runner
        if now_ns < self._last_tick_ns:
            self._on_jump_back()
        self._last_tick_ns = now_ns
        if not self._is_running():
            return
        first_ns = self._first_ns = now_ns if self._first_ns is None else self._first_ns
        answer = runner.tick(now_ns, self._now_s)
        self._num_ticks += 1
        self._keep(answer)
        if isinstance(answer, Hold):
            self._held[answer.kind] += 1
        else:
            self._num_commands += 1
            at_s = (now_ns - first_ns) / messages.NANOSECONDS
            self._found += [(at_s, why.kind, why.reason) for why in answer.interventions]
        if self._is_running():
            return
        self._ended.append(runner.reason)
        if runner.phase == "finished" and not self.is_whole:
            self._begin()

    def _keep(self, motion: Motion) -> None:
        made = as_trajectory(motion, self._sent_period_ns) if len(motion.points) else None
        if made is not None:
            self._made.setdefault(motion.stamp_ns, []).append(made)

    def _steady(self) -> float:
        """Return when the message came that is being taken, s."""
        return self._now_s

    # ---------------------------------------------------------------- what came out

    def _compare(self) -> Difference:
        found = Difference(len(self._sent), 0, 0, 0.0, "", 0.0)
        for sent in self._sent:
            stamp_ns = messages.to_ns(sent.header.stamp)
            # A clock that stands still for a moment gives several ticks one stamp.
            found_apart = [apart_by(sent, made) for made in self._made.get(stamp_ns, ())]
            if not found_apart:
                continue
            apart = min(found_apart, key=lambda apart: float(apart.max(initial=0.0)))
            largest = float(apart.max(initial=0.0))
            found = dataclasses.replace(
                found,
                num_compared=found.num_compared + 1,
                num_equal=found.num_equal + (largest == 0.0),
            )
            if largest > found.largest:
                at_s = (stamp_ns - (self._first_ns or 0)) / messages.NANOSECONDS
                joint = sent.joint_names[int(apart.argmax())]
                found = dataclasses.replace(found, largest=largest, joint=joint, at_s=at_s)
        return found

    def _notes(self) -> tuple[str, ...]:
        if self.is_whole:
            return ()
        what = "began before this bag" if self.clock == "recorded" else "has no recorded start"
        return (
            f"the run {what}: chunks begin at measured positions, so commands differ from those "
            "that were sent",
        )


def apart_by(sent: Any, made: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the largest distance (J,) of two trajectories' positions, joint by joint.

    Where their times differ, `made` is interpolated at those of `sent`; both end at rest.

    Raises:
        BagError: they are of other joints.
    """
    if list(sent.joint_names) != list(made.joint_names):
        raise BagError(
            f"the recorded commands are of joints {list(sent.joint_names)}",
            expected=f"{list(made.joint_names)}, which the policy commands",
        )
    points, times = messages.trajectory_points(sent)
    others, other_times = messages.trajectory_points(made)
    if times != other_times:
        columns = [np.interp(times, other_times, column) for column in others.T]
        others = np.stack(columns, axis=1)
    return np.abs(points - others).max(axis=0)
