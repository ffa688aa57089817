"""The pilot: a short comparison that says which algorithm serves a task, or that it cannot say."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from grpo_ros import typed
from grpo_ros.configuration import load_config
from grpo_ros.errors import ConfigurationError
from grpo_ros.experiments.comparison import more_seeds, paired, success
from grpo_ros.experiments.protocol import INCOMPLETE, INTERRUPTED, say
from grpo_ros.experiments.report import write_report
from grpo_ros.experiments.results import Results, collect, episodes_of
from grpo_ros.experiments.run_queue import RunQueue, free_cores
from grpo_ros.experiments.study import Arm, Scenario, Study
from grpo_ros.files import write_atomically
from grpo_ros.interrupts import Interrupts

PPO, GRPO = "ppo", "grpo_8"
MARGIN = 0.05
"""A difference of success that matters."""
FIRST_SEED = 1000
"""Of the pilot: training afterwards, with small seeds, does not repeat it."""
PILOT_SHARE = 0.2
"""Of a task's own budget that a pilot's runs have."""
MAXIMUM_PAIRS = 20
HOPELESS = 0.02
"""Success below which nothing is compared."""


@dataclasses.dataclass(frozen=True)
class Advice:
    """What a pilot found.

    Attributes:
        verdict: ppo | grpo | either | not conclusive | neither.
        reason: in words, with the interval.
        settings: to train with, key=value; empty where nothing is recommended.
        difference: PPO's success minus GRPO's: mean, low, high.
        pairs: of runs it rests on.
        more_pairs: that would settle it, beyond these; 0 where it is settled.
        more_episodes: environment episodes of those.
    """

    verdict: str
    reason: str
    settings: tuple[str, ...]
    difference: tuple[float, float, float]
    pairs: int
    more_pairs: int = 0
    more_episodes: int = 0


def run_pilot(
    task: str,
    limit_s: float,
    steps: int | None,
    settings: tuple[str, ...],
    folder: str,
    workers: int | None,
) -> int:
    """Run pairs of PPO and GRPO for some minutes, and advise; return the exit code.

    How many pairs is fixed after the first, by its duration alone: nothing is stopped because it
    looks good.

    Raises:
        ConfigurationError: a setting is unknown or out of range.
    """
    study, cores = pilot_study(task, steps, settings), free_cores(workers)
    output = Path(folder or f"advice/{task}")
    interrupts = Interrupts()

    def run(num_pairs: int) -> int:
        """Run so many pairs; return 0, or the exit code where they are not done."""
        cells = dataclasses.replace(study, seeds=num_pairs).cells()
        queue = RunQueue(cells, output, cores, say)
        interrupts.attach(queue.stop, can_keep=lambda: True)
        is_done = queue.run()
        return INTERRUPTED if interrupts.has_come else 0 if is_done else INCOMPLETE

    pair_s, code = _first_pair(output, run)
    if code == 0:
        num_pairs = pairs_within(limit_s, pair_s, len(cores))
        say(f"a pair takes {pair_s:.0f} s: {num_pairs} pairs in all")
        study = dataclasses.replace(study, seeds=num_pairs)
        code = run(num_pairs)
    if code == INTERRUPTED:
        say("interrupted; the same command goes on")
    if code:
        return code
    command = " ".join(["grpo-ros advise --task", task, *settings])
    results = collect(study, study.cells(), output, command)
    advice = judge(results, task)
    path = output / "advice.json"
    write_atomically(path, (json.dumps(typed.encode(advice), indent=1) + "\n").encode())
    written = [path, results.write(output / "results.json"), *write_report(results, output)]
    say(f"{advice.verdict}: {advice.reason}")
    if advice.settings:
        say("train with: grpo-ros train " + " ".join([*advice.settings, *settings]))
    say(f"wrote {' '.join(map(str, written))}")
    return 0


def pilot_study(task: str, steps: int | None, settings: Sequence[str]) -> Study:
    """Return a pilot's pairs of runs; how many is decided later.

    Raises:
        ConfigurationError: the task is unknown, or a setting.
    """
    config = load_config([f"task={task}", *settings])
    if steps is not None and steps < 1:
        raise ConfigurationError(f"'steps' = {steps}", expected="at least 1")
    budget = steps or max(1, round(PILOT_SHARE * config.collection.env_steps))
    rollouts = config.collection.num_groups * config.collection.group_size
    measured = ("evaluation.final_episodes=400", "evaluation.episodes=128")
    single = ("algorithm=ppo", f"num_groups={rollouts}", "group_size=1")
    return Study(
        f"Pilot of {task}",
        {task: Scenario(task, env_steps=budget)},
        {PPO: Arm(title="PPO", settings=single), GRPO: Arm(2, title="GRPO")},
        seeds=1,
        settings=("film=false", *measured, *settings),
        limits="A pilot: runs are short, and who leads early need not lead in the end.",
        first_seed=FIRST_SEED,
    ).checked()


def pairs_within(limit_s: float, pair_s: float, num_cores: int) -> int:
    """Return how many pairs fit into the time, the first included; at least 2.

    Args:
        limit_s: for all.
        pair_s: that the first pair took.
        num_cores: a run at a time on each; the first pair had two of them, if there are.
    """
    at_once = max(1, num_cores // 2)
    more = math.floor((limit_s - pair_s) / max(1e-9, pair_s)) * at_once
    return min(MAXIMUM_PAIRS, max(2, 1 + more))


def judge(results: Results, task: str) -> Advice:
    """Return what a pilot's pairs of runs say."""
    ppo, grpo = results.of(task, PPO), results.of(task, GRPO)
    found, rates = paired(ppo, grpo), (success(ppo), success(grpo))
    runs = [*ppo.values(), *grpo.values()]
    told = (
        f"after {max(run.env_steps for run in runs):,} environment steps PPO has "
        f"{rates[0].text()}, GRPO {rates[1].text()}, PPO minus GRPO {found.text(signed=True)}, "
        f"{found.num} pairs"
    )
    difference = (found.mean, found.low, found.high)

    def advice(verdict: str, more: str = "", algorithm: str = "") -> Advice:
        chosen = (f"task={task}", f"algorithm={algorithm}") if algorithm else ()
        return Advice(verdict, f"{told}.{more}", chosen, difference, found.num)

    if max(rate.mean for rate in rates) < HOPELESS:
        return advice(
            "neither",
            " No rollout has anything to learn from: give more demonstrations "
            "(demonstrations.episodes), or start along them (starts.curriculum_fraction=0.5)",
        )
    if found.low > 0.0:
        return advice("ppo", algorithm="ppo")
    if found.high < 0.0:
        return advice("grpo", algorithm="grpo")
    if found.low >= -MARGIN and found.high <= MARGIN:
        more = f" They are within {MARGIN:.0%}; GRPO is the simpler one, without a critic"
        return advice("either", more, "grpo")
    needed = more_seeds(found, max(abs(found.mean), MARGIN)) or found.num + 2
    pairs = needed - found.num
    episodes = round(pairs * 2 * sum(map(episodes_of, runs)) / len(runs))
    more = f" {pairs} more pairs, about {episodes:,} episodes, would settle it: --minutes"
    return dataclasses.replace(
        advice("not conclusive", more), more_pairs=pairs, more_episodes=episodes
    )


def _first_pair(output: Path, run: Callable[[int], int]) -> tuple[float, int]:
    """Run the first pair; return how long it takes, also where it was run before, and the code."""
    path = output / "pilot.json"
    try:
        return float(json.loads(path.read_text())["pair_s"]), 0
    except (OSError, ValueError, KeyError, TypeError):
        pass
    began_s = time.monotonic()
    code = run(1)
    pair_s = time.monotonic() - began_s
    if code == 0:
        output.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps({"pair_s": round(pair_s, 2)}) + "\n").encode())
    return pair_s, code
