"""One run of `bench.monitoring` in a process of its own, which trains when it is told to.

    python -m bench.monitored_run KIND IN OUT [key=value ...]

KIND: bare, the trainer alone, which writes and tells nothing; monitored, the node `learner` as it
is launched; listening, no run but a subscriber of every topic. IN and OUT are pipes: a line with a
number asks for as many iterations, each answered with a line of JSON, and `end` ends the run.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grpo_ros.configuration import load_config
from grpo_ros.training import trainer as trainer_module
from grpo_ros.training.run_record import RunRecord
from grpo_ros.training.trainer import Trainer

DISCOVERY_S = 0.5
TASKS = "/proc/self/task"


class Turns:
    """What the bench asks for, and its answers.

    Args:
        inward, outward: descriptors of the pipes.
    """

    def __init__(self, inward: int, outward: int) -> None:
        self._asked, self._told = os.fdopen(inward), os.fdopen(outward, "w", buffering=1)
        self._left = 0

    def wait(self) -> bool:
        """Wait until an iteration is asked for; False: the end was."""
        if self._left == 0:
            self.tell(ready=True)
            line = self._asked.readline().strip()
            if not line.isdecimal():  # `end`, or the bench is gone
                return False
            self._left = int(line)
        self._left -= 1
        return True

    def tell(self, **answer: Any) -> None:
        """Answer with a line."""
        self._told.write(json.dumps(answer) + "\n")


class PacedTrainer(Trainer):
    """A trainer that waits for its turn before each iteration, and times it."""

    turns: Turns

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.meter = Meter()
        super().__init__(*args, **kwargs)
        self.meter.watch(self)

    def _iterate(self) -> None:
        if not self.turns.wait():
            self.requests.stop()
            return
        watched_s, began = self.meter.spent_s, self._spent()  # reading the meter takes time, too
        super()._iterate()
        spent = {key: value - began[key] for key, value in self._spent().items()}
        watched_s = self.meter.spent_s - watched_s
        self.turns.tell(**spent, watch_s=watched_s, hash=self.state_hash())

    def _spent(self) -> dict[str, float]:
        return {
            "env_steps": self.env_steps,
            "wall_s": time.monotonic(),
            "cpu_s": time.process_time(),
        }


class Meter:
    """CPU time of what is done for whoever watches.

    In the trainer's thread that is what hooks take: observers, paths, metrics' files, TensorBoard,
    histograms. Counted whole are the threads of ROS and its middleware, all there before the
    trainer is made, and the one in which TensorBoard writes.
    """

    def __init__(self) -> None:
        main = str(threading.get_native_id())
        self._threads = [thread for thread in os.listdir(TASKS) if thread != main]
        self._hooks_s = 0.0
        self._is_inside = False

    @property
    def spent_s(self) -> float:
        """All of it so far."""
        writers = [
            str(thread.native_id)
            for thread in threading.enumerate()
            if type(thread).__module__.startswith("tensorboard")
        ]
        return self._hooks_s + sum(_run_s(thread) for thread in (*self._threads, *writers))

    def watch(self, trainer: Trainer) -> None:
        """Time a trainer's hooks."""
        places: list[tuple[Any, Sequence[str]]] = [
            (trainer.observers, ("on_step", "on_groups", "on_iteration", "on_progress")),
            (trainer.run_record, ("iteration",)),
            (trainer.algorithm, ("histograms",)),
            (trainer_module, ("rollout_histograms",)),
        ]
        if trainer.collector.trace is not None:
            places.append((trainer.collector.trace, ("begin", "note", "paths")))
        for place, names in places:
            for name in names:
                setattr(place, name, self._timed(getattr(place, name)))
        simulator: Any = trainer.simulator
        if simulator.watch is not None:
            simulator.watch = trainer.observers.on_step

    def _timed(self, call: Any) -> Any:
        def timed(*args: Any) -> Any:
            if self._is_inside:
                return call(*args)
            self._is_inside, began_s = True, time.thread_time()
            try:
                return call(*args)
            finally:
                self._hooks_s += time.thread_time() - began_s
                self._is_inside = False

        return timed


def _run_s(thread: str) -> float:
    """Return the CPU time of a thread of this process, s; 0 of one that is gone."""
    try:
        return int(Path(TASKS, thread, "schedstat").read_text().split()[0]) / 1e9
    except OSError:
        return 0.0


class BareTrainer(PacedTrainer):
    """One that nobody watches: no observers, no metrics' files, no histograms."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.run_record.close()
        total = self.config.collection.env_steps
        self.run_record = RunRecord(self.run_directory, self.observers, total, is_written=False)
        self.algorithm.histograms = dict


def bare(turns: Turns, settings: Sequence[str]) -> None:
    """Train in this process."""
    trainer_module.rollout_histograms = lambda rollout: {}
    BareTrainer.turns = turns
    BareTrainer(load_config(settings)).run()


def monitored(turns: Turns, settings: Sequence[str]) -> None:
    """Run the node `learner` with its training view."""
    from grpo_ros.nodes import learner

    PacedTrainer.turns = turns
    trainer_module.Trainer = PacedTrainer
    code = learner.main(settings)
    assert code == 0, f"the learner ended with {code}"


def listening(turns: Turns, _: Sequence[str]) -> None:
    """Subscribe to every topic that there is; answer how many messages of each came."""
    from rclpy.node import Node
    from rclpy.qos import QoSProfile

    from grpo_ros.nodes.shared.process import spinning

    heard: Counter[str] = Counter()

    def on_message(topic: str, _: Any) -> None:
        heard[topic] += 1

    def listen(node: Any) -> None:
        for topic, kinds in node.get_topic_names_and_types():
            offers = node.get_publishers_info_by_topic(topic)
            others = [each for each in offers if each.node_name != node.get_name()]
            if topic in known or not others:
                continue
            package, _, name = kinds[0].split("/")
            kind = getattr(importlib.import_module(f"{package}.msg"), name)
            offered = others[0].qos_profile
            profile = QoSProfile(
                depth=10, reliability=offered.reliability, durability=offered.durability
            )
            callback = functools.partial(on_message, topic)
            known[topic] = node.create_subscription(kind, topic, callback, profile)

    known: dict[str, Any] = {}
    with spinning(lambda: Node("listener", start_parameter_services=False), args=[]) as process:
        node = process.node
        node.create_timer(DISCOVERY_S, lambda: listen(node))
        while turns.wait():
            turns.tell(heard=dict(heard))


if __name__ == "__main__":
    kinds = {each.__name__: each for each in (bare, monitored, listening)}
    kinds[sys.argv[1]](Turns(int(sys.argv[2]), int(sys.argv[3])), sys.argv[4:])
    sys.stdout.flush()
    os._exit(0)  # as a node leaves; see nodes/shared/process.py
