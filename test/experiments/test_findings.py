"""Findings: PPO can win, GRPO can win, and what cannot be told apart is said to be so."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from study_helpers import made_up, made_up_study, run

from grpo_ros.experiments import plots, tables
from grpo_ros.experiments.findings import (
    conclusion_on_exact_states,
    confront,
    exact_state_evidence,
    recommend,
    saves_samples,
)
from grpo_ros.experiments.report import write_report
from grpo_ros.experiments.results import Results
from grpo_ros.experiments.study import Arm
from grpo_ros.experiments.tables import expectation_table

PPO_WINS = {"ppo": [90, 92, 91, 91, 92], "grpo_8": [80, 83, 81, 82, 80]}
GRPO_WINS = {"ppo": [70, 72, 71, 70, 71], "grpo_8": [85, 88, 86, 87, 85]}
LEVEL = {"ppo": [80, 90, 85], "grpo_8": [85, 84, 88]}


def test_whichever_wins_is_recommended():
    found = recommend(made_up(PPO_WINS), "pick")
    assert found.arm == found.best == "ppo" and set(found.worse) == {"grpo_8"}
    assert recommend(made_up(GRPO_WINS), "pick").arm == "grpo_8"


def test_what_cannot_be_told_apart_is_said_and_the_simpler_is_used():
    found = recommend(made_up(LEVEL), "pick")
    assert found.best == "grpo_8" and found.equals == ("ppo",) and not found.worse
    assert found.arm == "grpo_8"
    level = {"ppo": LEVEL["grpo_8"], "grpo_8": LEVEL["ppo"]}
    found = recommend(made_up(level), "pick")
    assert found.best == "ppo" and found.arm == "grpo_8", "without a critic, within 2 points"
    apart = {"grpo_8": [60, 90, 75], "ppo": [85, 84, 88]}
    assert recommend(made_up(apart), "pick").arm == "ppo", "10 points are not nothing"
    unequal = {"grpo_8": [95, 97, 96, 20, 21, 22], "ppo": [80, 82, 81]}
    found = recommend(made_up(unequal), "pick")
    assert found.best == "grpo_8" and found.num_seeds == 3, "by the seeds that both have"
    assert recommend(made_up({"ppo": [1]}), "pick") is None
    single = recommend(made_up({"ppo": [90], "grpo_8": [60]}), "pick")
    assert single.equals == ("grpo_8",) and not single.worse, "one seed tells no arms apart"


@pytest.mark.parametrize(
    ("rates", "verdict"),
    [(GRPO_WINS, "confirmed"), (PPO_WINS, "contradicted"), (LEVEL, "not conclusive")],
)
def test_expectations_are_confronted_with_what_was_measured(rates, verdict):
    found = {each.claim: each.verdict for each in confront(made_up(rates))}
    assert found["On short-horizon tasks with binary outcomes GRPO beats PPO"] == verdict
    assert found["From scratch PPO beats GRPO"] == "not tested"
    assert found["On long horizons PPO beats GRPO"] == "not tested"


def test_a_verdict_needs_seeds_and_all_that_is_planned():
    claim = "On short-horizon tasks with binary outcomes GRPO beats PPO"
    plain = made_up_study()
    both = dataclasses.replace(
        plain, scenarios=dict.fromkeys(("pick", "other"), plain.scenarios["pick"])
    )

    def verdict(runs, study=plain):
        return {each.claim: each.verdict for each in confront(Results(study, tuple(runs)))}[claim]

    wins, losses = made_up(GRPO_WINS).runs, made_up(PPO_WINS).runs
    assert verdict(each for each in wins if each.seed < 4) == "not conclusive"
    assert verdict(wins, both) == "partly confirmed", "the other task is planned"
    assert verdict(losses, both) == "partly contradicted"
    lost = [dataclasses.replace(each, scenario="other") for each in losses]
    assert verdict([*wins, *lost], both) == "mixed"


def test_arms_that_are_equal_are_not_told_apart_for_being_many():
    """Of a dozen equals, the best beats some by chance in their own intervals."""
    generator = np.random.default_rng(0)
    names = ["grpo_8", *(f"arm_{i}" for i in range(12))]
    study = made_up_study(**dict.fromkeys(names[1:], 3))

    def num_worse() -> int:
        runs = [
            run(arm, seed, min(1000, int(n)), episodes=1000)
            for arm in names
            for seed, n in enumerate(generator.normal(900, 30, size=5))
        ]
        return len(recommend(Results(study, tuple(runs)), "pick").worse)

    assert sum(num_worse() > 0 for _ in range(20)) <= 3


@pytest.mark.parametrize(
    ("adaptive", "verdict"),
    [
        ([88, 90, 89, 90, 91], "confirmed"),
        ([88, 90, 89], "not conclusive"),
        ([80, 82, 81, 80, 82], "contradicted"),
        ([80, 95, 85, 90, 83], "not conclusive"),
    ],
)
def test_adaptive_switching_is_held_against_the_better_of_the_two(adaptive, verdict):
    better = {"ppo": [90, 92, 91, 91, 92], "grpo_8": [80, 83, 81, 82, 80]}
    (found,) = [
        each
        for each in confront(made_up({**better, "adaptive": adaptive}, adaptive=3))
        if each.claim.startswith("Adaptive switching")
    ]
    assert found.verdict == verdict
    assert [e.second for e in found.evidence] == ["ppo"]


def test_one_task_on_which_it_falls_behind_contradicts_that_it_never_does():
    study = made_up_study(adaptive=3)
    scenarios = dict.fromkeys(("pick", "other"), study.scenarios["pick"])
    study = dataclasses.replace(study, scenarios=scenarios)
    level = {"ppo": 90, "grpo_8": 80, "adaptive": 91}
    runs = [run(arm, s, n + s % 2) for arm, n in level.items() for s in range(5)]

    def verdict(*more):
        (found,) = [
            each.verdict
            for each in confront(Results(study, (*runs, *more)))
            if each.claim.startswith("Adaptive switching")
        ]
        return found

    assert verdict() == "not conclusive", "the other task is planned, and has no runs"
    other = [
        run(arm, s, n + s % 2, scenario="other") for arm, n in level.items() for s in range(5)
    ]
    assert verdict(*other) == "confirmed"
    behind = [dataclasses.replace(r, outcomes="1" * 70 + "0" * 30) for r in other[-5:]]
    assert verdict(*other[:-5], *behind) == "contradicted"


@pytest.mark.parametrize(
    ("gain", "seeds", "verdict"),
    [
        ((3, 5, 4), 10, "confirmed"),
        ((1, -1, 0), 10, "refuted: no gain of 0.02"),
        ((9, -9, 6), 10, "not conclusive"),
        ((3, 5, 4), 9, "not conclusive, 9 of 10 seeds"),
    ],
)
def test_learned_selection_is_confirmed_or_refuted_by_ten_seeds(gain, seeds, verdict):
    plain = [80 + s % 3 for s in range(seeds)]
    rates = {"grpo_8": plain, "selection": [n + gain[s % 3] for s, n in enumerate(plain)]}
    found = {each.claim: each.verdict for each in confront(made_up(rates))}
    assert found["On pick_place learned selection of initial states makes GRPO better"] == verdict


def test_at_least_as_good_asks_for_no_more_than_that():
    rates = {"ppo": (840, 850, 860, 850, 860), "grpo_8": (841, 852, 859, 850, 860)}
    runs = [
        run(arm, s, n, episodes=1000) for arm, each in rates.items() for s, n in enumerate(each)
    ]
    level = Results(made_up_study(), tuple(runs))
    found = {each.claim.split(" (")[0]: each.verdict for each in confront(level)}
    assert found["After demonstrations GRPO is at least as good as PPO"] == "confirmed"
    assert found["On short-horizon tasks with binary outcomes GRPO beats PPO"] == "not conclusive"


def curves(**found):
    runs = [run(arm, s, 90, curve) for arm, curve in found.items() for s in range(3)]
    return Results(made_up_study(), tuple(runs))


SLOW, FAST = (0.0, 0.4, 0.8, 0.9), (0.0, 0.9, 0.9)


def test_an_exact_state_option_saves_samples_only_against_both():
    better = curves(selection=FAST, grpo_8=SLOW, ppo=SLOW)
    (evidence,) = exact_state_evidence(better)
    assert saves_samples(better, evidence)
    assert "0.6 of plain GRPO's environment steps or less" in conclusion_on_exact_states(better)
    faster_ppo = curves(selection=FAST, grpo_8=SLOW, ppo=(0.0, 1.0))
    assert not saves_samples(faster_ppo, exact_state_evidence(faster_ppo)[0])
    no_better = curves(selection=SLOW, grpo_8=SLOW, ppo=SLOW)
    said = conclusion_on_exact_states(no_better)
    assert "not sample efficiency" in said and "replay and debugging" in said
    nobody = curves(selection=(0.0, 0.1), grpo_8=(0.0, 0.1), ppo=(0.0, 0.1))
    said = conclusion_on_exact_states(nobody)
    assert "1 of 1 comparisons it is not excluded" in said and "sample efficiency" not in said
    dearer = curves(selection=(0.0, 0.45, 0.9), grpo_8=SLOW, ppo=(0.0, 0.9))
    assert "not sample efficiency" in conclusion_on_exact_states(dearer), "PPO needs fewer"
    never = curves(selection=(0.0, 0.1), grpo_8=SLOW, ppo=SLOW)
    assert not saves_samples(never, exact_state_evidence(never)[0])


def test_an_exact_state_option_is_better_than_the_algorithm_that_it_is_an_option_of():
    rates = {
        **PPO_WINS,
        "selection": [88, 91, 89, 90, 89],
        "ppo_selection": [90, 92, 90, 92, 91],
    }
    study = made_up_study()
    chosen = Arm(3, settings=("algorithm=ppo", "starts.selection=learned"))
    arms = {**study.arms, "ppo_selection": chosen}
    results = dataclasses.replace(made_up(rates), study=dataclasses.replace(study, arms=arms))
    said = conclusion_on_exact_states(results)
    assert "Better than its plain algorithm was selection on pick, +0.082" in said
    better = said[said.index("Better") :]
    assert "ppo_selection" not in better, "it beats GRPO as PPO does, and PPO by nothing"
    faster = curves(ppo_selection=FAST, grpo_8=SLOW, ppo=(0.0, 0.4, 0.9))
    faster = dataclasses.replace(faster, study=results.study)
    said = conclusion_on_exact_states(faster)
    assert "ppo_selection on pick (" in said and "of GRPO's steps, " in said
    assert said.startswith("Of 1 comparisons"), "an option of PPO counts where it adds to PPO"
    single = {arm: found[:1] for arm, found in rates.items()}
    assert "Better" not in conclusion_on_exact_states(
        dataclasses.replace(results, runs=made_up(single).runs)
    )


def test_the_report_needs_nothing_beside_itself_and_says_it_all(tmp_path):
    others = {"cloning": [60, 61, 62], "selection": [82, 84, 81, 83, 82]}
    results = made_up({**PPO_WINS, **others})
    runs = [
        dataclasses.replace(each, points=run(each.arm, 0, 1, SLOW).points) for each in results.runs
    ]
    decided = dataclasses.replace(runs[-1], seed=0, decisions=("update 9: the critic judges",))
    results = dataclasses.replace(
        results, runs=(*runs, decided), missing=("pick/ppo/seed_9",), command="grpo-ros protocol"
    )
    html, markdown = write_report(results, tmp_path, [["task", "bytes"], ["pick", "1 <2>"]])
    page, text = html.read_text(), markdown.read_text()
    for found in (page, text):
        for words in (
            "1 of 20 runs are not finished",
            "What to use",
            "contradicted",
            "+0.100",
            "PPO",
            "not sample efficiency",
            "the critic judges",
            "grpo-ros protocol",
            "cloned",
        ):
            assert words in found, words
    assert page.count("<svg") >= 3 and "http://www.w3.org" in page
    assert "src=" not in page and "<link" not in page and "<script" not in page
    assert "1 &lt;2&gt;" in page
    assert text.count("data:image/svg+xml;base64,") >= 3
    plots = sorted(path.stem for path in (tmp_path / "plots").glob("*.svg"))
    assert plots == ["pick_PPO_and_GRPO", "pick_exact_states", "pick_groups", "pick_rewards"]
    assert (tmp_path / "plots/pick_groups.svg").read_text() in page


def test_a_plot_without_a_curve_is_left_out(tmp_path):
    def num_plots(arm: str) -> int:
        page, _ = write_report(curves(**{arm: SLOW}), tmp_path)
        return page.read_text().count("<svg")

    assert num_plots("selection") == 1
    assert num_plots("ppo") == 2


def test_bands_that_would_hide_each_other_have_panels_of_their_own(tmp_path):
    names = [f"selection_{number}" for number in range(plots.MOST_BANDS)]

    def written(*options: str) -> set[str]:
        results = curves(ppo=SLOW, grpo_8=SLOW, **dict.fromkeys(options, FAST))
        chosen = Arm(3, settings=("starts.selection=learned",))
        arms = {**results.study.arms, **dict.fromkeys(options, chosen)}
        study = dataclasses.replace(results.study, arms=arms)
        folder = tmp_path / str(len(options))
        write_report(dataclasses.replace(results, study=study), folder)
        return {path.stem for path in (folder / "plots").glob("*.svg")}

    assert "pick_each_of_exact_states" not in written(*names[:-2])
    assert "pick_each_of_exact_states" in written(*names)
    panels = (tmp_path / str(len(names)) / "plots/pick_each_of_exact_states.svg").read_text()
    assert all(name in panels for name in (*names, ">PPO<", "GRPO"))


def test_a_verdict_says_by_how_many_seeds():
    """Three seeds of one arm and five of the other are three pairs."""
    rates = {"ppo": [90, 92, 91, 93, 90], "grpo_8": [80, 83, 81]}
    head, *rows = expectation_table(made_up(rates))
    seeds = {row[0]: row[head.index("by seeds, at least")] for row in rows}
    assert seeds["On short-horizon tasks with binary outcomes GRPO beats PPO"] == "3"
    assert seeds["From scratch PPO beats GRPO"] == ""


def test_what_an_arm_seldom_has_is_not_told_as_its_mean():
    """Hybrids whose critic judges have groups in few updates, and not those that curves show."""
    plain = run("selection", 0, 90, SLOW)
    told = dict(plain.points[1].values, diversity=0.5)
    often = dataclasses.replace(
        plain, points=tuple(dataclasses.replace(p, values=told) for p in plain.points)
    )
    rare = dataclasses.replace(plain, points=(*plain.points[:-1], often.points[-1]))
    for found, cell in ((rare, ""), (often, "0.50")):
        head, row = tables.group_table(Results(made_up_study(), (found,)), "pick")
        assert row[head.index("spread of actions")] == cell


def test_the_method_says_which_clones_ended_early(tmp_path):
    def told(*runs):
        return write_report(Results(made_up_study(), runs), tmp_path)[1].read_text()

    early = {"behaviour_cloning": {"maximum_success": 0.6}}
    short = dataclasses.replace(run("ppo", 0, 90, SLOW), config=early)
    control = run("cloning", 0, 60)
    assert "On pick all others began from a clone that ended early" in told(control, short)
    assert "ended early" not in told(control, run("ppo", 0, 90, SLOW))
    assert "control" not in told(short)


def test_tables_have_a_cell_for_each_of_their_columns():
    results = made_up({**PPO_WINS, "cloning": [60, 61, 62], "selection": [82, 84, 81]})
    found = [
        tables.success_table(results, "pick"),
        tables.seed_table(results, "pick"),
        tables.group_table(results, "pick"),
        tables.recommendation_table(results),
        tables.expectation_table(results),
        tables.exact_state_table(results),
    ]
    for rows in found:
        assert len(rows) > 1 and len({len(row) for row in rows}) == 1, rows[0]
