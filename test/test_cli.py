"""The command line: what it prints, where, and its exit codes; it never imports ROS."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from grpo_ros import __version__, cli

ROOT = Path(__file__).resolve().parents[1]
SMALL = (
    "collection.num_groups=2",
    "collection.group_size=2",
    "demonstrations.episodes=2",
    "behaviour_cloning.num_steps=20",
    "evaluation.every_iterations=1000",
    "evaluation.episodes=4",
    "evaluation.final_episodes=4",
    "film=false",
)
TIMEOUT_S = 90.0


def _start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "grpo_ros.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a small finished run, and what the command printed."""
    output = tmp_path_factory.mktemp("runs")
    process = _start("train", *SMALL, "env_steps=500", f"output={output}")
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, err
    return output / "latest", out


def test_training_ends_with_a_line_that_names_result_and_files(run):
    folder, out = run
    last = out.strip().splitlines()[-1]
    assert last.startswith("finished: success ") and "held-out episodes" in last
    for name in ("policy.onnx", "evaluation.json", "report.html"):
        assert f"{folder.resolve() / name}" in last and (folder / name).is_file()


def test_a_policy_is_evaluated_and_the_result_written(run, capsys):
    folder, _ = run
    assert cli.main(["evaluate", str(folder / "policy.onnx"), "--episodes", "4"]) == 0
    out = capsys.readouterr().out
    path = Path(out.strip().rpartition("wrote ")[2])
    result = json.loads(path.read_text())
    final = json.loads((folder / "evaluation.json").read_text())
    assert result["episodes"] == 4
    # The same four held-out initial states as at the end of training.
    assert (result["successes"], result["wilson_95"]) == (final["successes"], final["wilson_95"])


def test_a_policy_is_evaluated_without_what_it_observes(run, capsys):
    folder, _ = run
    words = ["evaluate", str(folder / "policy.onnx"), "--episodes", "4", "--blank"]
    assert cli.main([*words, "goal_from_cube"]) == 0
    result = json.loads(Path(capsys.readouterr().out.rpartition("wrote ")[2].strip()).read_text())
    assert result["blank"] == ["goal_from_cube"] and result["episodes"] == 4
    assert cli.main([*words, "goal_from_cub"]) != 0
    assert "did you mean 'goal_from_cube'" in capsys.readouterr().err


def test_a_policy_is_evaluated_in_a_simulator_that_there_is_and_into_a_folder_that_there_is_not(
    run, capsys, tmp_path
):
    words = ["evaluate", str(run[0] / "policy.onnx"), "--episodes", "2"]
    assert cli.main([*words, "--simulator", "mujuco"]) == 2
    err = capsys.readouterr().err
    assert "no simulator 'mujuco'; expected isaaclab | mujoco; did you mean 'mujoco'?" in err
    target = tmp_path / "not" / "there" / "result.json"
    assert cli.main([*words, "--output", str(target)]) == 0
    assert json.loads(target.read_text())["episodes"] == 2


@pytest.mark.parametrize("command", ["transfer", "check"])
def test_a_report_is_written_into_a_folder_that_is_made(tmp_path, monkeypatch, command):
    from grpo_ros.deployment.records import transfer
    from grpo_ros.simulators import check

    monkeypatch.setattr(transfer, "transfer_table", lambda *_: [])
    monkeypatch.setattr(check, "check_simulator", lambda *_: {"passed": 0, "checks": []})
    target = tmp_path / "not" / "there" / "result.json"
    policies = ["policy.onnx"] if command == "transfer" else []
    assert cli.main([command, *policies, "--output", str(target)]) == 0
    assert json.loads(target.read_text())["versions"]


def test_a_run_is_exported_again(run, capsys, tmp_path):
    folder, _ = run
    target = tmp_path / "again.onnx"
    assert cli.main(["export", str(folder), "--output", str(target)]) == 0
    assert capsys.readouterr().out.strip().endswith(f"wrote {target}") and target.is_file()


def test_a_checkpoint_is_exported_by_its_name(run, capsys, tmp_path):
    folder, _ = run
    target = tmp_path / "named.onnx"
    words = ["export", str(folder), "--output", str(target), "--checkpoint"]
    name = min(path.name for path in (folder / "checkpoints").iterdir())
    assert cli.main([*words, name]) == 0
    assert f"exported checkpoint {name}; wrote" in capsys.readouterr().out and target.is_file()
    target.unlink()
    assert cli.main([*words, str(int(name))]) == 0
    assert f"exported checkpoint {name}; wrote" in capsys.readouterr().out and target.is_file()
    assert cli.main([*words, "777"]) == 2
    assert "checkpoints/000777 cannot be read" in capsys.readouterr().err


def test_an_export_as_onnx_wants_a_run_and_no_file(run, capsys):
    assert cli.main(["export", str(run[0] / "policy.onnx")]) == 2
    assert "expected a run's folder, as runs/latest; name one, or say --format leapp" in (
        capsys.readouterr().err
    )


def test_a_run_and_a_policy_file_become_leapp_bundles(run, capsys, tmp_path):
    folder, _ = run
    policy = folder / "policy.onnx"
    assert cli.main(["export", str(policy), "--format", "leapp"]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last == f"exported {policy}; wrote {folder / 'leapp'}"
    assert (folder / "leapp" / "policy.onnx").read_bytes() == policy.read_bytes()
    target = tmp_path / "bundle"
    arguments = ["export", str(folder), "--format", "leapp", "--output", str(target)]
    assert cli.main(arguments) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("exported checkpoint ") and last.endswith(f"wrote {target}")
    assert (target / "policy.yaml").is_file() and (target / "actions.onnx").is_file()


def test_interrupted_training_keeps_a_checkpoint_and_says_how_to_go_on(tmp_path):
    process = _start("train", *SMALL, "env_steps=100000000", f"output={tmp_path}")
    deadline = time.monotonic() + TIMEOUT_S
    for line in process.stdout:
        if "start: success" in line or time.monotonic() > deadline:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, err
    last = out.strip().splitlines()[-1]
    assert last.startswith("interrupted, resume with resume:=") and "checkpoints/" in last
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "grup_size=3"], "did you mean 'group_size'?"),
        (["train", "--config", "gone.yaml"], "gone.yaml: No such file or directory"),
        (["train", "resume=/nowhere", "film=false"], "is not a run directory"),
        (["evaluate", "gone.onnx"], "gone.onnx: No such file or directory"),
        (["export", "gone"], "No such file or directory"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, arguments, message):
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("grpo-ros: ") and err.count("\n") == 1


def test_episodes_must_be_positive(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["evaluate", "x.onnx", "--episodes", "0"])
    assert end.value.code == 2 and "at least 1" in capsys.readouterr().err


def test_tasks_are_listed_with_what_they_observe_and_command(capsys):
    assert cli.main(["tasks"]) == 0
    out = capsys.readouterr().out
    assert "pick_place: " in out and "observes cube_from_tip (3,) m" in out
    assert "commands gripper" in out


def test_all_settings_are_listed(capsys):
    assert cli.main(["train", "--keys"]) == 0
    assert "collection.group_size=" in capsys.readouterr().out


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert __version__ in capsys.readouterr().out


def test_nothing_of_ros_is_imported():
    code = (
        "import sys, grpo_ros.cli, grpo_ros.training.trainer, grpo_ros.report, "
        "grpo_ros.deployment.simulation.simulated_task\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('rclpy', 'launch', 'std_msgs')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT_S,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
    )
    assert done.stdout.strip() == "[]"
