"""The pilot: a short comparison that says which algorithm serves a task, or that it cannot say."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from grpo_ros import typed
from grpo_ros.configuration import load_config
from grpo_ros.errors import ConfigurationError
from grpo_ros.experiments.comparison import more_seeds, paired, success
from grpo_ros.experiments.protocol import INCOMPLETE, INTERRUPTED, say
from grpo_ros.experiments.report import write_report
from grpo_ros.experiments.results import FILE, Result, Results, collect, episodes_of
from grpo_ros.experiments.run_of_cell import runs_folder
from grpo_ros.experiments.run_queue import RunQueue, free_cores
from grpo_ros.experiments.study import Arm, Scenario, Study
from grpo_ros.files import write_atomically
from grpo_ros.interrupts import Interrupts

PPO, GRPO = "ppo", "grpo_8"
MARGIN = 0.05
"""A difference of success that matters."""
FIRST_SEED = 1000
"""Of the pilot: training afterwards, with small seeds, does not repeat it."""
CALIBRATION_SHARE = 0.05
"""Of a task's own budget: runs that only show how long others take."""
PAIRS, MINIMUM_PAIRS, MAXIMUM_PAIRS = 6, 3, 20
"""As many as should be, as few as may be, as many as are of use."""
CURVE_SHARE = 1.25
"""What a run's curve adds to the time of its rollouts and updates."""
HOPELESS = 0.02
"""Success below which nothing is compared."""
LEAST_STEP_S = 1e-9
"""Below what any environment step takes."""


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


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a pair of runs takes, one after the other.

    Attributes:
        fixed_s: whatever its steps: imports, demonstrations, cloning, measurements.
        step_s: per environment step of both; 0 where neither took any.
    """

    fixed_s: float
    step_s: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """How many pairs, of how many environment steps each run."""

    pairs: int
    steps: int


def run_pilot(
    task: str,
    limit_s: float,
    steps: int | None,
    settings: tuple[str, ...],
    folder: str,
    workers: int | None,
) -> int:
    """Run pairs of PPO and GRPO for some minutes, and advise; return the exit code.

    How many pairs, and of what length, is fixed after a short first pair by its duration alone:
    nothing is stopped because it looks good.

    Raises:
        ConfigurationError: a setting is unknown or out of range.
    """
    cores, output = free_cores(workers), Path(folder or f"advice/{task}")
    budget = load_config([f"task={task}", *settings]).collection.env_steps
    most = budget if steps is None else steps
    short = min(most, max(1, round(CALIBRATION_SHARE * most)))
    interrupts = Interrupts()

    def run(study: Study, folder: Path) -> int:
        """Run a study; return 0, or the exit code where not all of it is done."""
        queue = RunQueue(study.cells(), folder, cores, say)
        interrupts.attach(queue.stop, can_keep=lambda: True)
        if interrupts.has_come:  # before this queue was there
            queue.stop()
        is_done = queue.run()
        return INTERRUPTED if interrupts.has_come else 0 if is_done else INCOMPLETE

    first = pilot_study(task, short, settings)
    plan, code = _planned(output, first, run, limit_s, most, len(cores))
    study = dataclasses.replace(pilot_study(task, plan.steps, settings), seeds=plan.pairs)
    if code == 0:
        say(f"{plan.pairs} pairs of runs of {plan.steps:,} environment steps")
        code = run(study, output)
    if code == INTERRUPTED:
        say("interrupted; the same command goes on")
    if code:
        return code
    results = collect(study, study.cells(), output, command(task, limit_s, steps, settings))
    advice = judge(results, task)
    path = output / "advice.json"
    write_atomically(path, (json.dumps(typed.encode(advice), indent=1) + "\n").encode())
    written = [path, results.write(output / FILE), *write_report(results, output)]
    say(f"{advice.verdict}: {advice.reason}")
    if advice.settings:
        say("train with: grpo-ros train " + " ".join([*advice.settings, *settings]))
    say(f"wrote {' '.join(map(str, written))}")
    return 0


def command(task: str, limit_s: float, steps: int | None, settings: Sequence[str]) -> str:
    """Return the command that asks for the same pilot."""
    parts = ["grpo-ros", "advise", "--task", task, "--minutes", f"{limit_s / 60.0:g}"]
    parts += ["--steps", str(steps)] if steps is not None else []
    return shlex.join([*parts, *settings])


def pilot_study(task: str, steps: int, settings: Sequence[str]) -> Study:
    """Return a pilot's pairs of runs of so many environment steps; how many is decided later.

    Args:
        task: name.
        steps: of each run, whatever the settings say.
        settings: of the user.

    Raises:
        ConfigurationError: the task is unknown, or a setting, or one chooses what is compared.
    """
    if steps < 1:
        raise ConfigurationError(f"'steps' = {steps}", expected="at least 1")
    measured = ("evaluation.final_episodes=400", "evaluation.episodes=128")
    study = Study(
        f"Pilot of {task}",
        # As a scenario's setting, steps stand above those that the user gives as the most.
        {task: Scenario(task, env_steps=steps, settings=(f"collection.env_steps={steps}",))},
        {
            PPO: Arm(title="PPO", settings=("algorithm=ppo",)),
            GRPO: Arm(2, title="GRPO", settings=("algorithm=grpo",)),
        },
        seeds=1,
        settings=("film=false", "failures.keep_mb=0", *measured),
        limits="A pilot: runs are short, and who leads early need not lead in the end.",
        first_seed=FIRST_SEED,
    )
    return study.narrowed(settings=settings).checked()


def plan(limit_s: float, cost: Cost, budget: int, num_cores: int) -> Plan:
    """Return how many pairs fit into the time, and of what length.

    The whole budget is best, since who leads early need not lead in the end; pairs are few rather
    than short; what time is left then makes them more.

    Args:
        limit_s: for all.
        cost: of a pair.
        budget: most environment steps of a run.
        num_cores: a run at a time on each.
    """
    whole_s = limit_s * num_cores
    for pairs in (PAIRS, *range(PAIRS - 1, MINIMUM_PAIRS - 1, -1)):
        each_s = whole_s / pairs - cost.fixed_s
        steps = min(budget, math.floor(each_s / max(cost.step_s, LEAST_STEP_S)))
        if steps >= CALIBRATION_SHARE * budget:
            break
    else:
        return Plan(MINIMUM_PAIRS, max(1, round(CALIBRATION_SHARE * budget)))
    fitting = math.floor(whole_s / (cost.fixed_s + cost.step_s * steps) + 1e-9)
    return Plan(min(MAXIMUM_PAIRS, max(pairs, fitting)), steps)


def cost_of(pair: Sequence[Result], took_s: float) -> Cost:
    """Return what a pair of runs that took so long in all says of another.

    A run whose clone already solves the curve takes no steps: its steps would cost the other's.
    """
    steps_s = [r.points[-1].wall_s / r.env_steps for r in pair if r.points[-1].wall_s > 0.0]
    step_s = CURVE_SHARE * len(pair) * sum(steps_s) / max(1, len(steps_s))
    steps = sum(r.env_steps for r in pair) / len(pair)
    return Cost(max(0.0, took_s - step_s * steps), step_s)


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
    lead = abs(found.mean)  # it excludes 0, or lies within the margin
    needed = more_seeds(found, max(lead, MARGIN - lead)) or found.num + 2
    pairs = needed - found.num
    episodes = round(pairs * 2 * sum(map(episodes_of, runs)) / len(runs))
    more = (
        f" {pairs} more pairs, about {episodes:,} episodes, would probably settle it (--minutes); "
        "an interval holds for one look, so take a second one for a little less"
    )
    return dataclasses.replace(
        advice("not conclusive", more), more_pairs=pairs, more_episodes=episodes
    )


def _planned(
    output: Path,
    first: Study,
    run: Callable[[Study, Path], int],
    limit_s: float,
    budget: int,
    num_cores: int,
) -> tuple[Plan, int]:
    """Run a first pair, unless a plan was made before; return the plan and the exit code."""
    path, folder = output / "plan.json", output / "first"
    asked = {
        "tasks": list(first.scenarios),
        "limit_s": limit_s,
        "budget": budget,
        "settings": list(first.settings),
    }
    try:
        found = json.loads(path.read_text())
        if {name: found[name] for name in asked} == asked:
            return Plan(int(found["pairs"]), int(found["steps"])), 0
    except (OSError, ValueError, KeyError, TypeError):
        pass
    # What an interrupted first pair left would make it seem to take less time than it does.
    shutil.rmtree(runs_folder(folder), ignore_errors=True)
    began_s = time.monotonic()
    code = run(first, folder)
    took_s = (time.monotonic() - began_s) * min(2, num_cores)
    if code:
        return Plan(1, 1), code
    cost = cost_of(collect(first, first.cells(), folder, "").runs, took_s)
    made = plan(limit_s, cost, budget, num_cores)
    text = json.dumps({**asked, **dataclasses.asdict(made)}) + "\n"
    write_atomically(path, text.encode())
    return made, 0
