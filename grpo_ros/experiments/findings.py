"""Findings: what a study's numbers say of each task, and of what the field expects."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from grpo_ros.experiments.comparison import (
    Interval,
    Ratio,
    paired,
    step_ratio,
    steps_to,
    success,
)
from grpo_ros.experiments.results import Results

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
    either. Arms are ranked by the seeds that all of them have. One seed tells no arms apart.
    """
    arms = [arm for arm in results.arms_on(scenario) if arm != CONTROL]
    if len(arms) < 2:
        return None
    runs = {arm: results.of(scenario, arm) for arm in arms}
    shared = set.intersection(*(set(each) for each in runs.values()))
    rates = {
        arm: success({seed: each[seed] for seed in shared} or each) for arm, each in runs.items()
    }
    best = max(arms, key=lambda arm: rates[arm].mean)
    leads = {arm: paired(runs[best], each) for arm, each in runs.items() if arm != best}
    worse = {arm: lead for arm, lead in leads.items() if is_lead(lead)}
    equals = tuple(arm for arm in leads if arm not in worse)
    simple = [
        arm for arm in equals if _complexity(arm) < _complexity(best) and leads[arm].mean <= CLOSE
    ]
    arm = min(simple, key=lambda arm: (_complexity(arm), -rates[arm].mean), default=best)
    return Recommendation(arm, best, success(runs[arm]), equals, worse, len(shared))


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
        verdict: confirmed | contradicted | mixed | not conclusive | not tested, perhaps with why.
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
    planned = {cell.scenario for cell in results.study.cells() if cell.arm == ADAPTIVE}
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
            lambda evidence: _verdict(evidence, CLOSE),
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
            [(s, ADAPTIVE, better) for s in every if (better := _better(results, s))],
            lambda evidence: _always(evidence, NEAR, planned),
        ),
        _confronted(
            results,
            "On pick_place learned selection of initial states makes GRPO better",
            "p (1 - p), as this project's prototype suggested",
            [(s, SELECTION, GRPO) for s in every if results.study.scenarios[s].task == PICK_PLACE],
            _gain,
        ),
    ]


def _always(evidence: Sequence[Evidence], margin: float, planned: set[str]) -> str:
    """Judge that no first is ever worse by more than a margin: one that is contradicts it.

    It is confirmed by enough seeds on every scenario that is planned, and not before.
    """
    known = [e.difference for e in evidence if e.difference.num >= 2]
    if any(difference.high < -margin for difference in known):
        return "contradicted"
    holding = [d for d in known if d.low > -margin and d.num >= LEAST_SEEDS]
    if evidence and len(holding) == len(evidence) == len(planned):
        return "confirmed"
    return "not conclusive" if evidence else "not tested"


def _gain(evidence: Sequence[Evidence]) -> str:
    """Judge that the first is better, by many seeds; a gain below CLOSE is none."""
    if not evidence:
        return "not tested"
    fewest = min(evidence, key=lambda e: e.difference.num).difference.num
    if fewest < MANY_SEEDS:
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

    Its interval must lie below 1, and all runs must have arrived. An option of PPO is none of
    GRPO's: its lead may be PPO's own.
    """
    ratio = evidence.ratio.interval
    is_many_fewer = ratio.mean <= MANY_FEWER and ratio.high < 1.0
    against = compare(results, evidence.scenario, evidence.first, PPO)
    is_no_more = against is not None and against.ratio.interval.high <= 1.0
    return is_many_fewer and is_no_more and _plain(results, evidence.first) == GRPO


def conclusion_on_exact_states(results: Results) -> str:
    """Return what may be said of snapshots and sample efficiency, in a sentence or two."""
    evidence = exact_state_evidence(results)
    if not evidence:
        return "No exact-state option was tried."
    saving = [each for each in evidence if saves_samples(results, each)]
    if saving:
        parts = [
            f"{results.study.title_of(e.first)} on {e.scenario} ({e.ratio.text()} of its steps)"
            for e in saving
        ]
        return (
            f"Of {len(evidence)} comparisons these need an estimated 0.6 of plain GRPO's "
            "environment steps or less, certainly fewer than all of them, and no more than PPO's, "
            f"to the same success: {'; '.join(parts)}. Of so many comparisons of equals one in "
            "forty would show a lead by chance."
        )
    plain = [compare(results, e.scenario, e.first, _plain(results, e.first)) for e in evidence]
    parts = [
        f"{results.study.title_of(e.first)} on {e.scenario}, "
        f"{e.difference.text(signed=True)} of success at the same steps"
        for e in plain
        if e is not None and is_lead(e.difference)
    ]
    told = f" Better than its plain algorithm was {'; '.join(parts)}." if parts else ""
    is_open = [e for e in evidence if not is_excluded(results, e)]
    if is_open:
        return (
            "No exact-state option was shown to reach a given success with at most 0.6 of plain "
            f"GRPO's environment steps and no more than PPO's. In {len(is_open)} of "
            f"{len(evidence)} comparisons it is not excluded either: intervals are too wide, or "
            f"runs never arrived.{told}"
        )
    return (
        "No exact-state option reached a given success with at most 0.6 of plain GRPO's "
        "environment steps and no more than PPO's: snapshots buy exact groups, replay and "
        f"debugging, not sample efficiency.{told}"
    )


def is_excluded(results: Results, evidence: Evidence) -> bool:
    """Return whether an option certainly needs more than 0.6 of GRPO's steps, or than PPO's."""
    against = compare(results, evidence.scenario, evidence.first, PPO)
    return evidence.ratio.interval.low > MANY_FEWER or (
        against is not None and against.ratio.interval.low > 1.0
    )


def _plain(results: Results, arm: str) -> str:
    """Return the arm that an exact-state option is one of: PPO or GRPO."""
    return PPO if "algorithm=ppo" in results.study.arms[arm].settings else GRPO


def _better(results: Results, scenario: str) -> str | None:
    """Return PPO or GRPO, whichever is better on common seeds; None if there are none."""
    found = compare(results, scenario, PPO, GRPO)
    if found is None:
        return None
    return PPO if found.difference.mean >= 0.0 else GRPO


def _confronted(
    results: Results,
    claim: str,
    source: str,
    pairs: Sequence[tuple[str, str, str]],
    judge: Callable[[Sequence[Evidence]], str] | None = None,
) -> Confronted:
    """Judge a claim by pairs (scenario, first, second); by default that the first is better."""
    found = [compare(results, *pair) for pair in pairs]
    evidence = tuple(each for each in found if each is not None)
    return Confronted(claim, source, (judge or _verdict)(evidence), evidence)


def _verdict(evidence: Sequence[Evidence], margin: float = 0.0) -> str:
    """Judge that the first is better, or worse by no more than a margin."""
    if not evidence:
        return "not tested"
    known = [e for e in evidence if e.difference.num >= 2]
    wins = sum(e.difference.low > -margin for e in known)
    losses = sum(e.difference.high < -margin for e in known)
    if wins and losses:
        return "mixed"
    if losses:
        return "contradicted"
    if wins == len(evidence):
        return "confirmed"
    return "partly confirmed" if wins else "not conclusive"
