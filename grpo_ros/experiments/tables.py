"""The tables of a study's report, as rows of text."""

from __future__ import annotations

from collections.abc import Sequence

from grpo_ros.experiments.comparison import paired, step_ratio, steps_to, student_interval, success
from grpo_ros.experiments.findings import (
    CONTROL,
    GRPO,
    PPO,
    Evidence,
    compare,
    confront,
    exact_state_evidence,
    recommend,
)
from grpo_ros.experiments.results import Point, Results
from grpo_ros.training.statistics import wilson_interval

Table = list[list[str]]
"""Rows of cells; the first is the head."""


def success_table(results: Results, scenario: str) -> Table:
    """Return each arm's success, against PPO and GRPO, and its steps to the threshold."""
    threshold = results.study.scenarios[scenario].threshold
    rows = [
        [
            "arm",
            "seeds",
            "success, mean of seeds",
            "minus PPO, paired",
            f"minus {_title(results, GRPO)}, paired",
            f"steps to {threshold:g}, median",
            "of GRPO's steps",
        ]
    ]
    reference = {name: results.of(scenario, name) for name in (PPO, GRPO)}
    for arm in results.arms_on(scenario):
        runs = results.of(scenario, arm)
        row = [results.study.title_of(arm), str(len(runs)), success(runs).text()]
        for name, others in reference.items():
            known = others and arm != name
            row.append(paired(runs, others).text(signed=True) if known else "")
        if arm == CONTROL:
            row += ["", ""]
        else:
            reached = steps_to(runs, threshold)
            row.append(reached.text())
            is_known = reference[GRPO] and arm != GRPO
            row.append(
                step_ratio(reached, steps_to(reference[GRPO], threshold)).text()
                if is_known
                else ""
            )
        rows.append(row)
    return rows


def seed_table(results: Results, scenario: str) -> Table:
    """Return every run's success with its Wilson interval, a row per arm and a column per seed."""
    arms = results.arms_on(scenario)
    seeds = sorted({run.seed for run in results.runs if run.scenario == scenario})
    rows = [["arm", *(f"seed {seed}" for seed in seeds)]]
    starts = {
        run.seed: run.start_rate
        for run in results.runs
        if run.scenario == scenario and run.arm != CONTROL and run.is_cloned
    }
    if starts:
        rows.append(["start, cloned", *(_number(starts.get(seed)) for seed in seeds)])
    for arm in arms:
        runs, cells = results.of(scenario, arm), []
        for seed in seeds:
            run = runs.get(seed)
            if run is None:
                cells.append("")
                continue
            low, high = wilson_interval(run.successes, len(run.outcomes))
            cells.append(f"{run.success_rate:.3f} [{low:.3f}, {high:.3f}]")
        rows.append([results.study.title_of(arm), *cells])
    return rows


def group_table(results: Results, scenario: str) -> Table:
    """Return what training was like, the mean over curve points and seeds of each arm.

    What fewer than half of them have, as groups of an algorithm that seldom has any, is left out.
    """
    names = {
        "all_fail_fraction": "groups that all fail",
        "all_success_fraction": "groups that all succeed",
        "diversity": "spread of actions",
        "explained_variance": "critic's explained variance, of lambda-returns",
    }
    shares = {"rollouts begun elsewhere": _elsewhere, "groups replayed": _replayed}
    ends_head = ["gradient steps", "CPU s", "environment steps"]
    head = ["arm", *names.values(), *shares, *ends_head]
    rows = [head]
    for arm in results.arms_on(scenario):
        runs = results.of(scenario, arm)
        if arm == CONTROL:
            continue
        cells = []
        points = [p for r in runs.values() for p in r.points if p.gradient_steps]
        for name in names:
            values = [p.values[name] for p in points if name in p.values]
            is_told = len(values) >= max(1, len(points) / 2)
            cells.append(f"{sum(values) / len(values):.2f}" if is_told else "")
        for share in shares.values():
            values = [share(p) for p in points]
            cells.append(f"{sum(values) / len(values):.3f}" if any(values) else "")
        ends = [run.points[-1] for run in runs.values() if run.points]
        means = [
            student_interval([float(getattr(end, key)) for end in ends]).mean
            for key in ("gradient_steps", "cpu_s", "env_steps")
        ]
        numbers = [f"{value:,.0f}" if ends and value else "" for value in means]
        rows.append([results.study.title_of(arm), *cells, *numbers])
    return rows


def _elsewhere(point: Point) -> float:
    """Return which share of the rollouts did not begin as episodes do."""
    return 1.0 - point.values.get("start_initial_fraction", 1.0)


def _replayed(point: Point) -> float:
    """Return which share of the groups came from the success buffer."""
    return point.values.get("replayed_fraction", 0.0)


def recommendation_table(results: Results) -> Table:
    """Return what to use on each scenario, and how sure that is."""
    apart = ("cannot be told apart from the best", "are worse")
    rows = [["task", "use", "its success", "seeds that all have", *apart]]
    for scenario in results.study.scenarios:
        found = recommend(results, scenario)
        if found is None:
            continue
        title = results.study.title_of
        equals = "; ".join(title(arm) for arm in found.equals if arm != found.arm)
        worse = "; ".join(f"{title(arm)} ({lead.mean:+.3f})" for arm, lead in found.worse.items())
        best = "" if found.best == found.arm else f" (highest mean: {title(found.best)})"
        rows.append(
            [
                scenario,
                title(found.arm) + best,
                found.success.text(),
                str(found.num_seeds),
                equals or "none",
                worse,
            ]
        )
    return rows


def expectation_table(results: Results) -> Table:
    """Return each expectation, its verdict and the comparisons behind it."""
    evidence = "evidence: difference of success"
    rows = [["what is expected", "by whom", "measured here", "by seeds, at least", evidence]]
    for each in confront(results):
        parts = [f"{e.scenario} {e.difference.text(signed=True)}" for e in each.evidence]
        fewest = min((e.difference.num for e in each.evidence), default="")
        rows.append([each.claim, each.source, each.verdict, str(fewest), "; ".join(parts)])
    return rows


def exact_state_table(results: Results) -> Table:
    """Return every exact-state option against plain GRPO and PPO."""
    rows = [
        [
            "option",
            "task",
            f"minus {_title(results, GRPO)}",
            "steps, of GRPO's",
            "seeds",
            "minus PPO",
            "steps, of PPO's",
            "seeds",
        ]
    ]
    for each in exact_state_evidence(results):
        ppo = compare(results, each.scenario, each.first, PPO)
        numbers = [*_numbers(each), *(_numbers(ppo) if ppo is not None else ("", "", ""))]
        rows.append([results.study.title_of(each.first), each.scenario, *numbers])
    return rows


def decision_table(results: Results, most: int = 12) -> Table:
    """Return what hybrids decided on the way, of one seed each."""
    rows = [["task", "arm", "decisions of the first seed"]]
    for scenario in results.study.scenarios:
        for arm in results.arms_on(scenario):
            runs = results.of(scenario, arm)
            decided = runs[min(runs)].decisions
            if decided:
                title = results.study.title_of(arm)
                told = "; ".join(decided[:most])
                more = f"; {len(decided) - most} more" if len(decided) > most else ""
                rows.append([scenario, title, told + more])
    return rows


def _title(results: Results, arm: str) -> str:
    """Return what an arm is called, also where the study has none of the name."""
    return results.study.title_of(arm) if arm in results.study.arms else arm


def _numbers(evidence: Evidence) -> Sequence[str]:
    difference = evidence.difference
    return difference.text(signed=True), evidence.ratio.text(), str(difference.num)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
