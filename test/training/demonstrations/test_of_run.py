"""Training from a folder: the same bits as from the task's own recording, and what is resumed."""

import contextlib
import io
import json

import pytest
from demonstration_helpers import ORIGIN, recorded
from gr00t_helpers import missing_packages

from grpo_ros import cli
from grpo_ros.configuration import config_hash, load_config
from grpo_ros.errors import DemonstrationError, TrainingError
from grpo_ros.export.policy_file import load_policy_file
from grpo_ros.training.demonstrations import write_demonstrations
from grpo_ros.training.observer import TrainingObserver
from grpo_ros.training.trainer import Trainer

SMALL = (
    "collection.num_groups=2",
    "collection.group_size=2",
    "collection.env_steps=300",
    "behaviour_cloning.num_steps=15",
    "behaviour_cloning.maximum_success=1",
    "evaluation.every_iterations=1000",
    "evaluation.episodes=2",
    "evaluation.final_episodes=3",
    "checkpoint.every_iterations=1",
    "film=false",
    "seed=1",
    "demonstrations.episodes=2",
    "demonstrations.action_noise=0.1",
)


class Stopper(TrainingObserver):
    """Asks for a stop after the first iteration; keeps what was said."""

    def __init__(self, stops):
        self.stops, self.trainer, self.said = stops, None, []

    def on_iteration(self, metrics, progress):
        if self.stops and metrics["iteration"] == 1:
            self.trainer.requests.stop()

    def on_message(self, text):
        self.said.append(text)


def _run(output, *overrides, stops=False):
    observer = Stopper(stops)
    config = load_config([*SMALL, f"output={output}", *overrides])
    observer.trainer = Trainer(config, observers=[observer])
    return observer.trainer.run(), observer.trainer, observer.said


@pytest.fixture
def folder(tmp_path):
    recording, contract = recorded("pick_place")
    write_demonstrations(tmp_path / "kept", recording, contract, ORIGIN, "episodes")
    return tmp_path / "kept"


def _cloned(output, *overrides):
    """Return the trainer, and what was said, after cloning and one iteration."""
    summary, trainer, said = _run(output, *overrides, "env_steps=100000", stops=True)
    assert summary.state == "stopped" and trainer.iteration == 1
    return trainer, said


# The flow policy is taught the whole chunk, also where it reaches beyond the end of the episode.
def test_training_from_a_folder_equals_training_from_the_recording(folder, tmp_path):
    from_memory, _ = _cloned(tmp_path / "a", "policy=flow")
    from_disk, said = _cloned(tmp_path / "b", "policy=flow", f"demonstrations.path={folder}")
    assert from_disk.state_hash() == from_memory.state_hash()
    assert any(f"2 demonstrations of {_steps()} control steps" in line for line in said)


def _steps():
    return recorded("pick_place")[0].num_steps


@pytest.mark.skipif(bool(missing_packages()), reason="needs LeRobot")
def test_training_from_a_lerobot_dataset_equals_training_from_the_recording(tmp_path):
    recording, contract = recorded("pick_place")
    write_demonstrations(tmp_path / "kept", recording, contract, ORIGIN, "lerobot")
    from_memory, _ = _cloned(tmp_path / "a")
    from_disk, _ = _cloned(tmp_path / "b", f"demonstrations.path={tmp_path / 'kept'}")
    assert from_disk.state_hash() == from_memory.state_hash()


def test_a_run_is_resumed_exactly_wherever_the_folder_has_gone(folder, tmp_path):
    _, straight, _ = _run(tmp_path / "a", f"demonstrations.path={folder}")
    part, first, _ = _run(tmp_path / "b", f"demonstrations.path={folder}", stops=True)
    assert part.state == "stopped" and first.iteration == 1
    moved = folder.rename(tmp_path / "moved")
    rest, second, _ = _run(tmp_path / "b", f"demonstrations.path={moved}")
    assert rest.run == part.run and rest.state == "finished"
    assert second.state_hash() == straight.state_hash()
    note = json.loads((second.run_directory.path / "demonstrations.json").read_text())
    assert (note["episodes"], note["format"]) == (2, "episodes")
    provenance = load_policy_file(second.run_directory.policy).contract.provenance
    assert provenance["demonstrations_sha256"] == note["sha256"]


def test_a_run_of_other_data_is_not_resumed(folder, tmp_path):
    path = f"demonstrations.path={folder}"
    part, _, _ = _run(tmp_path / "b", path, stops=True)
    data = folder / "episodes.safetensors"
    data.write_bytes(data.read_bytes() + b"\0")
    with pytest.raises(TrainingError, match="another configuration.*demonstrations.json"):
        _run(tmp_path / "b", path, f"resume={part.run}")
    with pytest.raises(DemonstrationError, match="has .* bytes; expected"):
        _run(tmp_path / "b", path)
    # Nor is one that has recorded its own.
    with pytest.raises(TrainingError, match="another configuration"):
        _run(tmp_path / "b", f"resume={part.run}")


def test_runs_from_before_there_was_a_path_keep_their_hash(folder):
    plain, kept = load_config(SMALL), load_config([*SMALL, f"demonstrations.path={folder}"])
    assert config_hash(plain) == config_hash(kept)


def test_a_wrong_folder_ends_training_before_it_begins(tmp_path):
    with pytest.raises(DemonstrationError, match="demonstrations.path = 'nowhere' is no folder"):
        _run(tmp_path / "runs", "demonstrations.path=nowhere")
    assert not (tmp_path / "runs").exists()


# ---------------------------------------------------------------- the command


def _demonstrate(*arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(["demonstrate", *map(str, arguments)])
    return code, out.getvalue(), err.getvalue()


def test_the_command_keeps_what_training_would_record(folder, tmp_path):
    target = tmp_path / "command"
    code, out, err = _demonstrate("--episodes", 2, "--format", "episodes", "seed:=1", target)
    assert code == 0, err
    assert "2 demonstrations of 2 attempts" in out and "demonstrations " in out
    last = out.strip().splitlines()[-1]
    assert last == f"recorded {_steps()} control steps of pick_place; wrote {target} (episodes)"
    name = "episodes.safetensors"
    assert (target / name).read_bytes() == (folder / name).read_bytes()


def test_the_command_says_why_it_takes_its_format(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "grpo_ros.training.demonstrations.lerobot_format.PACKAGES", ("no_such_package",)
    )
    code, out, _ = _demonstrate(tmp_path / "kept", "--episodes", 1)
    assert code == 0
    assert "format episodes, as LeRobot is not installed (make setup EXTRAS=gr00t)" in out
    code, _, err = _demonstrate(tmp_path / "other", "--episodes", 1, "--format", "lerobot")
    assert code == 2 and "`make setup EXTRAS=gr00t`, or --format episodes" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--episodes", "0", "new"], "0 episodes; expected at least 1"),
        (["seed:=1"], "folders none; expected one"),
        (["new", "sed:=1"], "did you mean 'seed'?"),
        (["new", "--task", "stak"], "did you mean 'stack'?"),
        (["new", "--format", "episodes", "--video"], "--format lerobot"),
        ([".", "--format", "episodes"], "is there already; expected a new or empty folder"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message):
    code, _, err = _demonstrate(*arguments)
    assert code == 2 and message in err and err.count("\n") == 1


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("grpo_ros.progress.ProgressLines.on_recorded", interrupt)
    code, out, err = _demonstrate(tmp_path / "kept", "--episodes", 2, "--format", "episodes")
    assert code == 130 and err == "grpo-ros: interrupted\n"
    assert list(tmp_path.iterdir()) == []
