"""Advice: whichever algorithm wins a pilot, or why nothing can be said."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import sys

import pytest
from scipy import stats
from study_helpers import made_up

from grpo_ros.errors import ConfigurationError
from grpo_ros.experiments import pilot
from grpo_ros.experiments.pilot import (
    Cost,
    Plan,
    _planned,
    command,
    cost_of,
    judge,
    pilot_study,
    plan,
    run_pilot,
)
from grpo_ros.experiments.results import Point
from grpo_ros.experiments.run_of_cell import folder_of


def advice(**rates):
    return judge(made_up(rates), "pick")


def test_whichever_wins_is_advised_with_its_settings():
    found = advice(ppo=[95, 96, 97], grpo_8=[80, 82, 81])
    assert found.verdict == "ppo" and found.settings == ("task=pick", "algorithm=ppo")
    assert found.difference[1] > 0.0 and "3 pairs" in found.reason and "+0.150" in found.reason
    found = advice(ppo=[80, 82, 81], grpo_8=[95, 96, 97])
    assert found.verdict == "grpo" and found.settings[1] == "algorithm=grpo"


def test_two_that_are_as_good_are_said_to_be():
    found = advice(ppo=[95, 96, 97, 95], grpo_8=[95, 97, 97, 96])
    assert found.verdict == "either" and "within 5%" in found.reason
    assert found.settings[1] == "algorithm=grpo"


def test_what_is_not_conclusive_says_how_much_more_would_settle_it():
    found = advice(ppo=[95, 70, 85], grpo_8=[80, 82, 75])
    assert found.verdict == "not conclusive" and not found.settings
    assert found.more_pairs > 0 and found.more_episodes > found.more_pairs
    assert f"{found.more_pairs} more pairs" in found.reason
    few = advice(ppo=[95], grpo_8=[80])
    assert few.verdict == "ppo", "one pair has the interval of its episodes"


def test_more_pairs_of_the_same_kind_do_settle_it():
    rates = {"ppo": [95, 70, 85], "grpo_8": [80, 72, 75]}
    found = judge(made_up(rates), "pick")
    assert found.verdict == "not conclusive"
    times = 1 + -(-found.more_pairs // 3)
    many = {arm: values * times for arm, values in rates.items()}
    assert judge(made_up(many), "pick").verdict in ("ppo", "either")


def test_where_nobody_learns_the_remedy_is_named():
    found = advice(ppo=[0, 1, 0], grpo_8=[1, 0, 0])
    assert found.verdict == "neither" and "demonstrations" in found.reason
    assert not found.settings


def test_episodes_are_those_of_training_and_measurement():
    results = made_up({"ppo": [95, 70, 85], "grpo_8": [80, 82, 75]})
    point = Point(4000, 0, 0.0, 0.0, {"eval_success": 0.5, "episode_steps": 40.0})
    runs = [dataclasses.replace(r, env_steps=4000, points=(point,)) for r in results.runs]
    found = judge(dataclasses.replace(results, runs=tuple(runs)), "pick")
    assert found.more_episodes == found.more_pairs * 2 * (4000 // 40 + 100)


def test_runs_are_as_long_as_six_pairs_allow_and_then_pairs_are_more():
    cost = Cost(fixed_s=60.0, step_s=2e-4)
    assert plan(600.0, cost, 80_000, 2) == Plan(15, 80_000)
    assert plan(600.0, cost, 2_000_000, 2) == Plan(6, 700_000)
    assert plan(120.0, cost, 2_000_000, 2) == Plan(3, 100_000)
    assert plan(6000.0, cost, 80_000, 8) == Plan(20, 80_000)


def timed(env_steps, wall_s):
    """A run of a pair that took so many steps in so long."""
    run = made_up({"ppo": [95]}).runs[0]
    return dataclasses.replace(
        run, env_steps=env_steps, points=(Point(env_steps, 0, wall_s, 0.0, {}),)
    )


def test_a_pair_costs_what_its_steps_take_and_whatever_else_it_took():
    assert cost_of([timed(1000, 2.0), timed(1000, 6.0)], 30.0) == Cost(20.0, 0.01)


def test_where_a_clone_solves_the_curve_its_steps_would_cost_what_the_other_s_do():
    assert cost_of([timed(0, 0.0), timed(1000, 6.0)], 30.0) == Cost(22.5, 0.015)


def test_where_both_clones_solve_the_curve_runs_may_have_the_whole_budget():
    cost = cost_of([timed(0, 0.0), timed(0, 0.0)], 30.0)
    assert cost == Cost(30.0, 0.0)
    assert plan(600.0, cost, 80_000, 1) == Plan(20, 80_000)
    assert plan(120.0, cost, 80_000, 1) == Plan(4, 80_000)
    assert plan(10.0, cost, 80_000, 1) == Plan(3, 4_000)


class Asked:
    """What a pilot has asked of `_planned` and of its queues; its interrupt comes between them."""

    def __init__(self, monkeypatch, made):
        self.first, self.is_stopped = None, []
        asked = self

        class Interrupts:
            has_come = False

            def attach(self, stop, can_keep):
                pass

        class Queue:
            def __init__(self, *_):
                asked.is_stopped.append(False)

            def stop(self):
                asked.is_stopped[-1] = True

            def run(self):
                return not asked.is_stopped[-1]

        def planned(output, first, run, *_):
            asked.first = first
            code = run(first, output)
            Interrupts.has_come = True
            return made, code

        for name, value in (("Interrupts", Interrupts), ("RunQueue", Queue)):
            monkeypatch.setattr(pilot, name, value)
        monkeypatch.setattr(pilot, "_planned", planned)


def test_an_interrupt_between_the_two_queues_stops_the_second(monkeypatch, tmp_path, capsys):
    asked = Asked(monkeypatch, Plan(3, 1000))
    assert run_pilot("insert", 60.0, None, (), str(tmp_path), None) == 130
    assert asked.is_stopped == [False, True]
    assert "the same command goes on" in capsys.readouterr().out


@pytest.mark.parametrize(("steps", "expected"), [(None, 2500), (4000, 200), (5, 1)])
def test_the_first_pair_is_short_whatever_the_steps(monkeypatch, tmp_path, steps, expected):
    asked = Asked(monkeypatch, Plan(3, 1000))
    run_pilot("insert", 60.0, steps, ("env_steps=50000",), str(tmp_path), None)
    assert asked.first.scenarios["insert"].env_steps == expected
    for none in (0, -5):
        with pytest.raises(ConfigurationError, match=f"'steps' = {none}"):
            run_pilot("insert", 60.0, none, (), str(tmp_path), None)


def test_the_command_that_a_report_names_asks_for_the_same_pilot():
    settings = ("evaluation.episodes=12", "ppo.objectives=[outcome, progress]")
    words = shlex.split(command("insert", 90.0, 4000, settings))
    expected = ["grpo-ros", "advise", "--task", "insert", "--minutes", "1.5", "--steps", "4000"]
    assert words == [*expected, *settings]
    assert command("insert", 600.0, None, ()) == "grpo-ros advise --task insert --minutes 10"


@pytest.mark.parametrize("setting", ["algorithm=ppo", "algorithm:=grpo", "task=stack"])
def test_what_a_pilot_compares_is_not_chosen_by_a_setting(setting):
    with pytest.raises(ConfigurationError, match="no task and no algorithm"):
        pilot_study("insert", 1000, (setting,))


def test_a_pilot_gives_both_the_same_rollouts_and_steps():
    study = pilot_study("insert", 50_000, ())
    configs = {cell.arm: cell.config() for cell in study.cells()}
    collections = [config.collection for config in configs.values()]
    assert {c.num_groups * c.group_size for c in collections} == {192}
    assert {c.env_steps for c in collections} == {50_000}
    limited = pilot_study("insert", 50_000, ("env_steps=240000",)).cells()
    assert {cell.config().collection.env_steps for cell in limited} == {50_000}
    assert configs["ppo"].algorithm == "ppo" and configs["grpo_8"].algorithm == "grpo"
    with pytest.raises(ConfigurationError, match="did you mean 'insert'"):
        pilot_study("insrt", 1, ())
    with pytest.raises(ConfigurationError, match="steps"):
        pilot_study("insert", 0, ())


def test_a_plan_is_gone_on_with_by_the_same_settings_only(tmp_path):
    interrupted = 130

    def planned(*settings, task="insert"):
        first = pilot_study(task, 1000, settings)
        return _planned(tmp_path, first, lambda study, folder: interrupted, 60.0, 50_000, 2)

    settings = list(pilot_study("insert", 1000, ("num_groups=3",)).settings)
    made = {"limit_s": 60.0, "budget": 50_000, "settings": settings, "pairs": 5, "steps": 900}
    made["tasks"] = ["insert"]
    (tmp_path / "plan.json").write_text(json.dumps(made))
    assert planned("num_groups=3") == (Plan(5, 900), 0)
    assert planned("num_groups=4")[1] == interrupted
    assert planned("num_groups=3", task="stack")[1] == interrupted


def test_a_first_pair_that_was_interrupted_is_timed_anew_and_whole(tmp_path):
    first = pilot_study("insert", 1000, ())
    cell = first.cells()[0]

    def interrupted(study, folder):
        (folder_of(cell, folder) / "half").mkdir(parents=True)
        return 130

    def once_more(study, folder):
        assert not folder_of(cell, folder).exists()
        return 130

    for run in (interrupted, once_more):
        assert _planned(tmp_path, first, run, 60.0, 50_000, 2)[1] == 130


@pytest.mark.timeout(300)
def test_the_command_ends_with_advice_and_the_files_that_it_wrote(tmp_path):
    command = [sys.executable, "-m", "grpo_ros", "advise", "--task", "pick_place"]
    command += ["--minutes", "0.1", "--steps", "400", "--output", str(tmp_path)]
    command += ["collection.num_groups=3", "collection.group_size=4", "seed=0"]
    command += ["demonstrations.episodes=3", "behaviour_cloning.num_steps=40"]
    command += ["evaluation.final_episodes=12", "evaluation.episodes=12"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads((tmp_path / "advice.json").read_text())
    assert found["pairs"] == 3
    last = ended.stdout.strip().splitlines()[-1]
    for name in ("advice.json", "results.json", "report.html", "report.md"):
        assert str(tmp_path / name) in last and (tmp_path / name).stat().st_size > 100
    assert "3 pairs of runs of 20 environment steps" in ended.stdout


def test_pairs_that_would_settle_it_leave_no_doubt():
    found = advice(ppo=[84, 78, 88, 79, 90, 76], grpo_8=[80, 80, 80, 80, 80, 80])
    mean, low, high = found.difference
    assert 0.0 < mean < 0.05 and low < 0.0 and high > 0.05
    num = found.pairs + found.more_pairs
    deviation = 0.5 * (high - low) * found.pairs**0.5 / stats.t.ppf(0.975, found.pairs - 1)
    half = (stats.t.ppf(0.975, num - 1) + 0.84) * deviation / num**0.5
    assert half <= max(mean, 0.05 - mean), "then it excludes 0, or is within the margin"
