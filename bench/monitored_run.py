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
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from grpo_ros.configuration import load_config
from grpo_ros.training import trainer as trainer_module
from grpo_ros.training.run_record import RunRecord
from grpo_ros.training.trainer import Trainer

DISCOVERY_S = 0.5


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

    def _iterate(self) -> None:
        if not self.turns.wait():
            self.requests.stop()
            return
        steps, wall_s, cpu_s = self.env_steps, time.monotonic(), time.process_time()
        super()._iterate()
        wall_s, cpu_s = time.monotonic() - wall_s, time.process_time() - cpu_s
        self.turns.tell(
            env_steps=self.env_steps - steps, wall_s=wall_s, cpu_s=cpu_s, hash=self.state_hash()
        )


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

    from grpo_ros.nodes.process import spinning

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
    os._exit(0)  # as a node leaves; see nodes/process.py
