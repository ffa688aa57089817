"""Findings: what a study's numbers say of each task, and of what the field expects."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

from grpo_ros.experiments.comparison import (
    Interval,
    Ratio,
    paired,
    simultaneous,
    step_ratio,
    steps_to,
    success,
)
from grpo_ros.experiments.results import Result, Results

CONTROL, PPO, GRPO, ADAPTIVE = "cloning", "ppo", "grpo_8", "adaptive"
"""Arms that others are compared with."""
GROUP_ARMS = ("grpo_4", "grpo_8", "grpo_16")
CLOSE = 0.02
"""A difference of success that nobody would notice."""
SELECTION, PICK_PLACE = "selection", "pick_place"
LEAST_SEEDS, MANY_SEEDS = 5, 10
"""Of what is to hold on every task, and of what is looked at most closely."""
NEAR = 0.05
"""How far adaptive switching may stay below the better of what it switches between."""
MANY_FEWER = 0.6
"""Share of plain GRPO's steps that an exact-state option would have to need at most."""


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """What to use for a task.

    Attributes:
        arm: recommended. best: with the highest mean success; often the same.
        success: of the recommended arm.
        equals: arms that cannot be told apart from the best.
        worse: arm -> the best's lead over it, where it is one.
        num_seeds: that all arms have, by which they are ranked; 0: by what each has.
    """

    arm: str
    best: str
    success: Interval
    equals: tuple[str, ...]
    worse: dict[str, Interval]
    num_seeds: int


def recommend(results: Results, scenario: str) -> Recommendation | None:
    """Return what to use on a scenario; None where fewer than two arms have learned on it.

    The arm of highest mean success, unless a simpler one cannot be told apart from it and is
    within CLOSE: then that one. GRPO is simplest, as it has no critic, then PPO, then what adds to
    either. Arms are ranked by the seeds that all of them have, and told apart by intervals that
    hold for all pairs of them at once. One seed tells no arms apart.
    """
    runs = _learned(results, scenario)
    if len(runs) < 2:
        return None
    shared = set.intersection(*(set(each) for each in runs.values()))
    rates = {
        arm: success({seed: each[seed] for seed in shared} or each) for arm, each in runs.items()
    }
    best = max(runs, key=lambda arm: rates[arm].mean)
    worse = {
        arm: lead
        for (first, arm), lead in simultaneous(runs).items()
        if first == best and is_lead(lead)
    }
    equals = tuple(arm for arm in runs if arm != best and arm not in worse)
    simple = [
        arm
        for arm in equals
        if _complexity(arm) < _complexity(best) and rates[best].mean - rates[arm].mean <= CLOSE
    ]
    arm = min(simple, key=lambda arm: (_complexity(arm), -rates[arm].mean), default=best)
    return Recommendation(arm, best, success(runs[arm]), equals, worse, len(shared))


def _learned(results: Results, scenario: str) -> dict[str, dict[int, Result]]:
    """Return the runs of each arm that has learned on a scenario."""
    arms = results.arms_on(scenario)
    return {arm: results.of(scenario, arm) for arm in arms if arm != CONTROL}


def _complexity(arm: str) -> int:
    return 0 if arm in GROUP_ARMS else 1 if arm == PPO else 2


def is_lead(difference: Interval) -> bool:
    """Return whether seeds, of which one is not enough, say that a difference is above 0."""
    return difference.num >= 2 and difference.low > 0.0


@dataclasses.dataclass(frozen=True)
class Evidence:
    """One comparison.

    Attributes:
        scenario, first, second: what was compared.
        difference: success of the first minus the second's, paired.
        ratio: steps of the first over the second's, to the scenario's threshold.
    """

    scenario: str
    first: str
    second: str
    difference: Interval
    ratio: Ratio


def compare(results: Results, scenario: str, first: str, second: str) -> Evidence | None:
    """Return one comparison; None where an arm has no runs."""
    a, b = results.of(scenario, first), results.of(scenario, second)
    if not a.keys() & b.keys():
        return None
    threshold = results.study.scenarios[scenario].threshold
    ratio = step_ratio(steps_to(a, threshold), steps_to(b, threshold))
    return Evidence(scenario, first, second, paired(a, b), ratio)


@dataclasses.dataclass(frozen=True)
class Confronted:
    """One expectation, and what was measured.

    Attributes:
        claim: what the field expects. source: who.
        verdict: confirmed | partly confirmed | mixed | partly contradicted | contradicted | not
            conclusive | not tested, perhaps with why.
        evidence: the comparisons.
    """

    claim: str
    source: str
    verdict: str
    evidence: tuple[Evidence, ...]


def confront(results: Results) -> list[Confronted]:
    """Return each expectation with what was measured."""

    def by_trait(trait: str) -> list[str]:
        return [n for n, each in results.study.scenarios.items() if trait in each.traits]

    every = list(results.study.scenarios)
    return [
        _confronted(
            results,
            "On short-horizon tasks with binary outcomes GRPO beats PPO",
            "SimpleVLA-RL (2509.09674), RIPT-VLA (2505.17016)",
            [(s, GRPO, PPO) for s in by_trait("short_horizon")],
        ),
        _confronted(
            results,
            f"After demonstrations GRPO is at least as good as PPO (within {CLOSE:g})",
            "SimpleVLA-RL (2509.09674), RIPT-VLA (2505.17016)",
            [(s, GRPO, PPO) for s in every],
            functools.partial(_verdict, margin=CLOSE),
        ),
        _confronted(
            results,
            "On long horizons PPO beats GRPO",
            "RL4VLA (2505.19789), Learning without critics? (2511.03527)",
            [(s, PPO, GRPO) for s in by_trait("long_horizon")],
        ),
        _confronted(
            results,
            "On tasks of several stages PPO beats GRPO",
            "RL4VLA (2505.19789)",
            [(s, PPO, GRPO) for s in by_trait("multi_stage")],
        ),
        _confronted(
            results,
            "From scratch PPO beats GRPO",
            "Learning without critics? (2511.03527)",
            [(s, "ppo_scratch", "grpo_scratch") for s in every],
        ),
        _confronted(
            results,
            "Larger groups are better",
            "GRPO (2402.03300), with 64 to a group",
            [(s, "grpo_16", "grpo_4") for s in every],
        ),
        _confronted(
            results,
            f"Adaptive switching stays within {NEAR:g} of the better of PPO and GRPO",
            "this project's goal",
            [(s, ADAPTIVE, _better(results, s)) for s in every],
            functools.partial(_always, margin=NEAR),
        ),
        _confronted(
            results,
            "On pick_place learned selection of initial states makes GRPO better",
            "p (1 - p), as this project's prototype suggested",
            [(s, SELECTION, GRPO) for s in every if results.study.scenarios[s].task == PICK_PLACE],
            _gain,
        ),
    ]


def _always(evidence: Sequence[Evidence], num_planned: int, margin: float) -> str:
    """Judge that no first is ever worse by more than a margin: one that is contradicts it."""
    verdict = _verdict(evidence, num_planned, margin)
    if verdict in ("mixed", "partly contradicted"):
        return "contradicted"
    return "not conclusive" if verdict == "partly confirmed" else verdict


def _gain(evidence: Sequence[Evidence], num_planned: int) -> str:
    """Judge that the first is better, by many seeds; a gain below CLOSE is none."""
    if not evidence:
        return "not tested"
    fewest = min(e.difference.num for e in evidence)
    if fewest < MANY_SEEDS or len(evidence) < num_planned:
        return f"not conclusive, {fewest} of {MANY_SEEDS} seeds"
    if all(e.difference.low > 0.0 for e in evidence):
        return "confirmed"
    if all(e.difference.high < CLOSE for e in evidence):
        return f"refuted: no gain of {CLOSE:g}"
    return "not conclusive"


def exact_state_arms(results: Results) -> list[str]:
    """Return the arms whose groups start where only an exact state can, or which choose starts."""
    names = ("starts.", "grpo.success_buffer")
    return [
        arm
        for arm, each in results.study.arms.items()
        if any(setting.startswith(names) for setting in each.settings)
    ]


def exact_state_evidence(results: Results) -> list[Evidence]:
    """Return each exact-state option against plain GRPO on each task that it was tried on."""
    found = [
        compare(results, scenario, arm, GRPO)
        for arm in exact_state_arms(results)
        for scenario in results.study.scenarios
    ]
    return [each for each in found if each is not None]


def saves_samples(results: Results, evidence: Evidence) -> bool:
    """Return whether an option needs at most 0.6 of GRPO's steps, and no more than PPO's.

    Both intervals must lie below 1, and all runs must have arrived. So an option of PPO counts
    where it adds to PPO; PPO's own lead over GRPO is then part of the 0.6.
    """
    ratio = evidence.ratio.interval
    is_many_fewer = ratio.mean <= MANY_FEWER and ratio.high < 1.0
    against = compare(results, evidence.scenario, evidence.first, PPO)
    return is_many_fewer and against is not None and against.ratio.interval.high <= 1.0


def conclusion_on_exact_states(results: Results) -> str:
    """Return what may be said of snapshots and sample efficiency, in a sentence or two."""
    evidence = exact_state_evidence(results)
    if not evidence:
        return "No exact-state option was tried."
    saving = [each for each in evidence if saves_samples(results, each)]
    better = _better_than_plain(results, evidence)
    if saving:
        parts = [_named_with_steps(results, e) for e in saving]
        return (
            f"Of {len(evidence)} comparisons these need an estimated {MANY_FEWER:g} of plain "
            "GRPO's environment steps or less, and no more than PPO's by their 95 % intervals, "
            f"to the same success: {'; '.join(parts)}. Of so many comparisons of equals one in "
            f"forty would show a lead by chance.{better}"
        )
    is_open = [e for e in evidence if not is_excluded(results, e)]
    none = (
        f"to reach a given success with at most {MANY_FEWER:g} of plain GRPO's environment steps "
        "and no more than PPO's"
    )
    if is_open:
        return (
            f"No exact-state option was shown {none}. In {len(is_open)} of {len(evidence)} "
            "comparisons it is not excluded either: intervals are too wide, or runs never "
            f"arrived.{better}"
        )
    return (
        f"No exact-state option was found {none}: snapshots buy exact groups, replay and "
        f"debugging, not sample efficiency.{better}"
    )


def is_excluded(results: Results, evidence: Evidence) -> bool:
    """Return whether an option needs more than 0.6 of GRPO's steps, or than PPO's, at 95 %."""
    against = compare(results, evidence.scenario, evidence.first, PPO)
    return evidence.ratio.interval.low > MANY_FEWER or (
        against is not None and against.ratio.interval.low > 1.0
    )


def _better_than_plain(results: Results, evidence: Sequence[Evidence]) -> str:
    """Return which options end with more success than PPO or GRPO without them, in a sentence."""
    at_once = {e.scenario: simultaneous(_learned(results, e.scenario)) for e in evidence}
    parts = []
    for each in evidence:
        pair = each.first, _plain(results, each.first)
        lead = at_once[each.scenario].get(pair)
        if lead is not None and is_lead(lead):
            text = f"{_named(results, each)}, {lead.text(signed=True)} of success"
            parts.append(f"{text} at the same steps")
    if not parts:
        return ""
    return (
        f" Better than its plain algorithm was {'; '.join(parts)} (intervals that hold for all "
        "pairs of a task's arms at once)."
    )


def _named(results: Results, evidence: Evidence) -> str:
    return f"{results.study.title_of(evidence.first)} on {evidence.scenario}"


def _named_with_steps(results: Results, evidence: Evidence) -> str:
    against = compare(results, evidence.scenario, evidence.first, PPO)
    ppo = f", {against.ratio.text()} of PPO's" if against is not None else ""
    return f"{_named(results, evidence)} ({evidence.ratio.text()} of GRPO's steps{ppo})"


def _plain(results: Results, arm: str) -> str:
    """Return the arm that an exact-state option is one of: PPO or GRPO."""
    return PPO if "algorithm=ppo" in results.study.arms[arm].settings else GRPO


def _better(results: Results, scenario: str) -> str:
    """Return PPO or GRPO, whichever is better on common seeds."""
    found = compare(results, scenario, PPO, GRPO)
    return GRPO if found is not None and found.difference.mean < 0.0 else PPO


def _confronted(
    results: Results,
    claim: str,
    source: str,
    pairs: Sequence[tuple[str, str, str]],
    judge: Callable[[Sequence[Evidence], int], str] | None = None,
) -> Confronted:
    """Judge a claim by pairs (scenario, first, second); by default that the first is better."""
    tried = {(cell.scenario, cell.arm) for cell in results.study.cells()}
    planned = [(s, a, b) for s, a, b in pairs if {(s, a), (s, b)} <= tried]
    found = [compare(results, *pair) for pair in planned]
    evidence = tuple(each for each in found if each is not None)
    return Confronted(claim, source, (judge or _verdict)(evidence, len(planned)), evidence)


def _verdict(evidence: Sequence[Evidence], num_planned: int, margin: float = 0.0) -> str:
    """Judge that the first is better, or worse by no more than a margin.

    Wherever it is planned to be compared, or else only partly; by fewer seeds than LEAST_SEEDS
    nowhere.
    """
    if not evidence:
        return "not tested"
    known = [e.difference for e in evidence if e.difference.num >= LEAST_SEEDS]
    wins = sum(difference.low > -margin for difference in known)
    losses = sum(difference.high < -margin for difference in known)
    if wins and losses:
        return "mixed"
    for num, verdict in ((wins, "confirmed"), (losses, "contradicted")):
        if num:
            return verdict if num == num_planned else f"partly {verdict}"
    return "not conclusive"
