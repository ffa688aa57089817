"""Studies: which runs they are made of, and mistakes in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from study_helpers import write_small

from grpo_ros.configuration import load_config
from grpo_ros.errors import ConfigurationError
from grpo_ros.experiments.results import Recorded, Results
from grpo_ros.experiments.study import load_study
from grpo_ros.presets import preset_names


@pytest.mark.parametrize("name", preset_names("studies"))
def test_every_run_of_the_studies_that_ship_is_valid(name):
    study = load_study(name)
    names = [cell.name for cell in study.cells()]
    assert len(names) == len(set(names)) > 0
    for cell in study.cells()[: len(study.arms)]:
        assert cell.config().seed == cell.seed


@pytest.mark.parametrize("name", preset_names("studies"))
def test_every_arm_of_the_studies_that_ship_says_its_algorithm(name):
    for arm_name, arm in load_study(name).arms.items():
        is_said = any(setting.startswith("algorithm=") for setting in arm.settings)
        assert is_said or arm_name == "cloning", f"{arm_name}: it would be whatever is the default"


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("full", "algorithm=ppo", "no task and no algorithm"),
        ("full", "task:=stack", "no task and no algorithm"),
        ("quick", "num_groups=12", r"arm 'grpo_4' has 'num_groups=48'"),
        ("quick", "collection.group_size = 3", r"arm 'grpo_4' has 'group_size=4'"),
        ("quick", "collection={num_groups: 12}", r"arm 'grpo_4' has 'num_groups=48'"),
        ("full", "algorithm.success_buffer=4", r"'success_buffer' has 'grpo.success_buffer=48'"),
        ("full", "task.rewards=[outcome]", r"arm 'ppo_scratch' has 'navigate.rewards="),
    ],
)
def test_what_tells_arms_apart_is_not_set_for_all(name, setting, message):
    with pytest.raises(ConfigurationError, match=message):
        load_study(name).narrowed(settings=[setting])


def test_what_no_arm_has_is_set_for_all_and_of_arms_that_are_left_only():
    study = load_study("full").narrowed(["insert"], settings=["task.rewards=[outcome]"]).checked()
    assert {cell.config().insert.rewards for cell in study.cells()} == {("outcome",)}
    study = load_study("gr00t").narrowed(settings=["algorithm.num_epochs=1", "env_steps=9"])
    assert {cell.config().collection.env_steps for cell in study.cells()} == {9}


@pytest.mark.parametrize("seeds", [0, -3])
def test_seeds_that_are_none_are_refused(seeds):
    with pytest.raises(ConfigurationError, match=rf"'seeds' = {seeds}; expected at least 1"):
        load_study("quick").narrowed(seeds=seeds)


def test_the_full_study_gives_all_arms_of_a_task_the_same_budget():
    study = load_study("full")
    budgets = {}
    for cell in study.cells():
        if cell.arm != "cloning":
            collection = cell.config().collection
            budgets.setdefault(cell.scenario, set()).add(collection.env_steps)
            assert collection.num_groups * collection.group_size == 192, cell.name
    assert all(len(found) == 1 for found in budgets.values())
    main = {"ppo", "grpo_4", "grpo_8", "grpo_16", "adaptive"}
    for task in ("pick_place", "navigate", "insert", "stack"):
        arms = {cell.arm for cell in study.cells() if cell.scenario == task}
        assert main <= arms
    assert len([c for c in study.cells() if c.name.startswith("pick_place/selection")]) == 10


def test_phases_tasks_seeds_and_settings_narrow_it(tmp_path):
    study = load_study("full")
    assert {c.arm for c in study.narrowed(["stack"]).cells([2])} == {"grpo_4", "grpo_8", "grpo_16"}
    few = study.narrowed(["insert"], 2, ["policy=flow"])
    assert {c.scenario for c in few.cells()} == {"insert"}
    assert {c.seed for c in few.cells()} == {0, 1}
    assert few.cells()[0].config().policy == "flow"
    assert set(study.narrowed(["pick_place"]).scenarios) == {"pick_place"}
    assert set(study.narrowed(["navigate_open"]).arms) == {"ppo_scratch", "grpo_scratch"}
    for task in ("pick_place", "navigate", "insert", "stack"):
        assert study.narrowed([task]).checked().cells(), "what is left names nothing that is gone"
    easy = study.narrowed(["pick_place_easy"])
    assert set(easy.scenarios) == {"pick_place_easy"} and "mix" not in easy.arms


def test_seeds_come_one_after_the_other_so_that_a_part_of_a_study_tells_of_all_arms():
    seeds = [cell.seed for cell in load_study("full").cells()]
    assert seeds == sorted(seeds)


def test_mistakes_are_named_with_their_place(tmp_path):
    path = write_small(tmp_path)
    text = path.read_text()
    cases = {
        text.replace("task: pick_place", "task: pick_plaice"): "pick_plaice",
        text.replace("algorithm=ppo", "algorithm.clip_loww=1"): "run pick/ppo/seed_0.*clip_loww",
        text.replace("seeds: 1", "seed: 1"): "unknown key 'study.seed'",
        text.replace("title: GRPO", "scenarios: [pikc]"): "pikc",
        text.replace("threshold: 0.5", "arms: [pop]"): "on scenario 'pick' arm 'pop'.*ppo",
    }
    for broken, message in cases.items():
        path.write_text(broken)
        with pytest.raises(ConfigurationError, match=message):
            load_study(str(path))
    with pytest.raises(ConfigurationError, match="did you mean 'full'"):
        load_study("fulll")
    with pytest.raises(ConfigurationError, match="did you mean 'insert'"):
        load_study("full").narrowed(["inset"])


def test_a_cell_is_what_grpo_ros_train_would_be_given(tmp_path):
    cell = load_study(str(write_small(tmp_path))).cells()[0]
    assert load_config(cell.settings()) == cell.config()
    assert cell.name == "pick/ppo/seed_0"


def test_the_published_results_are_of_the_study_and_settings_of_today():
    path = Path(__file__).parents[2] / "docs/study/results.json"
    recorded, published = Recorded(path), Results.read(path)
    found = [run for cell in load_study("full").cells() if (run := recorded.of(cell)) is not None]
    assert len(found) == len(published.runs) > 0 and not published.others
    assert all(len(run.outcomes) == 1000 and run.points for run in found)
