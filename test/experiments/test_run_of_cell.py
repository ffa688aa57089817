"""Which run is a cell's: one of its settings and its data, whose result can be read."""

from __future__ import annotations

import json

import pytest
from study_helpers import write_small

from grpo_ros.configuration import chosen_settings, to_yaml
from grpo_ros.errors import DemonstrationError
from grpo_ros.experiments.results import FILE, Results, collect
from grpo_ros.experiments.run_of_cell import finished_run, folder_of
from grpo_ros.experiments.run_queue import RunQueue
from grpo_ros.experiments.study import load_study
from grpo_ros.training.demonstrations import episodes_format, folder_sha256
from grpo_ros.training.run_directory import RunDirectory, create_run


def demonstrated(folder, content: bytes):
    """A folder that is told from others by its content."""
    folder.mkdir()
    (folder / episodes_format.MANIFEST).write_text("{}")
    (folder / episodes_format.DATA).write_bytes(content)
    return folder


def finished(cell, output) -> RunDirectory:
    """A run of a cell that has ended, as far as a study reads it."""
    config = cell.config()
    run = create_run(folder_of(cell, output), config.task, config.algorithm, cell.seed)
    (run.path / "config.yaml").write_text(to_yaml(chosen_settings(config)))
    start = {"successes": 1, "episodes": 2}
    evaluation = {"start": start, "env_steps": 40, "gradient_steps": 3}
    run.write_json("evaluation.json", evaluation)
    run.write_json("outcomes.json", {"outcome": [1, 0]})
    run.set_state("finished")
    return run


@pytest.fixture
def study(tmp_path):
    """A study of one run."""
    study = load_study(str(write_small(tmp_path)))
    return study.narrowed(settings=["collection.env_steps=40"])


def cloned_from(study, folder):
    return study.narrowed(settings=[f"demonstrations.path={folder}"])


def test_a_run_that_cloned_other_demonstrations_is_another_run(study, tmp_path):
    first, second = (demonstrated(tmp_path / name, name.encode()) for name in "AB")
    studies = [cloned_from(study, folder) for folder in (first, second)]
    cells = [each.cells()[0] for each in studies]
    run = finished(cells[0], tmp_path)
    run.write_json("demonstrations.json", {"sha256": folder_sha256(first)})
    assert finished_run(cells[0], tmp_path) == run
    assert finished_run(cells[1], tmp_path) is None
    assert finished_run(study.cells()[0], tmp_path) is None, "nor is it one of the task's script"
    moved = first.rename(tmp_path / "moved")
    again = cloned_from(study, moved).cells()[0]
    assert finished_run(again, tmp_path) == run, "where the data lies has no part in it"

    # A results.json alone tells them apart as well.
    (tmp_path / "alone").mkdir()
    results = collect(cloned_from(study, moved), [again], tmp_path, "")
    results.write(tmp_path / "alone" / FILE)
    (found,) = Results.read(tmp_path / "alone" / FILE).runs
    assert found.demonstrations_sha256 == folder_sha256(moved)
    for cells_study, num in ((cloned_from(study, moved), 1), (studies[1], 0), (study, 0)):
        read = collect(cells_study, [], tmp_path / "alone", "")
        assert (len(read.runs), len(read.others)) == (num, 1 - num)


def test_demonstrations_that_are_not_there_are_refused_before_anything_runs(study, tmp_path):
    cells = cloned_from(study, tmp_path / "absent").cells()
    with pytest.raises(DemonstrationError, match="absent' is no folder"):
        RunQueue(cells, tmp_path, [0], lambda _: None)


@pytest.mark.parametrize("name", ["evaluation.json", "outcomes.json"])
@pytest.mark.parametrize("text", [None, '{"start": {"succ', "[1, 2]", '{"schema": 1}'])
def test_a_finished_run_whose_result_is_damaged_is_made_anew_and_named(
    study, tmp_path, name, text
):
    cell = study.cells()[0]
    run, said = finished(cell, tmp_path), []
    assert finished_run(cell, tmp_path, said.append) == run and not said
    if text is None:
        (run.path / name).unlink()
    else:
        (run.path / name).write_text(text)
    queue = RunQueue([cell], tmp_path, [0], said.append)
    assert queue.progress().startswith("0 of 1 runs done")
    assert said == [f"{run.path} does not count: {name} cannot be read"]
    assert collect(study, [cell], tmp_path, "").missing == (cell.name,)
    newer = finished(cell, tmp_path)
    assert finished_run(cell, tmp_path) == newer
    assert json.loads((newer.path / name).read_text())
