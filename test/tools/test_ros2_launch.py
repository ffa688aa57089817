"""The `launch` verb for a ROS 2 without ros2launch: arguments, files, exit statuses."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("ros2cli")

from grpo_ros_cli_shim.launch import (  # noqa: E402
    LaunchCommand,
    find_in_package,
    parse_arguments,
    resolve,
)

LAUNCH_FILE = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess
from launch.substitutions import LaunchConfiguration

def failed(event, context):
    if event.returncode:
        raise RuntimeError(f"exit status {event.returncode}")

def generate_launch_description():
    return LaunchDescription([
        DeclareLaunchArgument("algorithm", default_value="grpo", choices=["grpo", "ppo"],
                              description="The algorithm."),
        DeclareLaunchArgument("code", default_value="0", description="An exit status."),
        DeclareLaunchArgument("path", description="A file."),
        ExecuteProcess(cmd=["sh", "-c", [
            "echo ", LaunchConfiguration("algorithm"), " > ", LaunchConfiguration("path"),
            "; exit ", LaunchConfiguration("code")]], on_exit=failed),
    ])
"""

Launch = Callable[..., int]


@pytest.fixture
def launch_file(tmp_path: Path) -> Path:
    path = tmp_path / "train.launch.py"
    path.write_text(LAUNCH_FILE)
    return path


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Launch:
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))

    def run(*words: object) -> int:
        parser = argparse.ArgumentParser()
        command = LaunchCommand()
        command.add_arguments(parser, "ros2 launch")
        return command.main(parser=parser, args=parser.parse_args([str(word) for word in words]))

    return run


def test_arguments_reach_the_processes_and_the_status_is_0(
    launch: Launch, launch_file: Path, tmp_path: Path
) -> None:
    written = tmp_path / "written"
    assert launch("-n", launch_file, "algorithm:=ppo", f"path:={written}") == 0
    assert written.read_text() == "ppo\n"


def test_the_status_is_that_of_the_launch(
    launch: Launch, launch_file: Path, tmp_path: Path
) -> None:
    assert launch("-n", launch_file, "code:=3", f"path:={tmp_path / 'written'}") == 1


def test_a_value_outside_the_choices_fails(launch: Launch, launch_file: Path) -> None:
    assert launch("-n", launch_file, "algorithm:=sac", "path:=/dev/null") == 1


def test_a_missing_argument_fails(launch: Launch, launch_file: Path) -> None:
    assert launch("-n", launch_file) == 1


def test_a_misspelt_argument_is_named_with_the_nearest(
    launch: Launch, launch_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launch("-n", launch_file, "algoritm:=ppo", "path:=/dev/null")
    message = "no argument 'algoritm', did you mean 'algorithm'?"
    assert message in capsys.readouterr().err


def test_show_args_prints_every_argument_once_and_starts_nothing(
    launch: Launch, launch_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch("--show-args", launch_file) == 0
    text = capsys.readouterr().out
    assert "'algorithm':\n        The algorithm. Valid choices are: ['grpo', 'ppo']\n" in text
    assert text.count("Valid choices") == 1
    assert "(default: '0')" in text
    assert text.rstrip().endswith("A file.")


def test_print_shows_the_actions_and_starts_nothing(
    launch: Launch, launch_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch("-p", launch_file, "path:=/dev/null") == 0
    assert "ExecuteProcess" in capsys.readouterr().out


def test_a_launch_file_that_cannot_be_loaded_is_named_in_one_line(
    launch: Launch, launch_file: Path
) -> None:
    launch_file.write_text("import a_module_that_is_not_there\n")
    with pytest.raises(RuntimeError, match="a_module_that_is_not_there") as raised:
        launch("-n", launch_file)
    assert str(launch_file) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_words_without_a_sign_are_refused() -> None:
    assert parse_arguments(["a:=1", "b:=x:=y", "c:=", "a:=2"]) == {"a": "2", "b": "x:=y", "c": ""}
    for word in ("algorithm=ppo", "ppo", ":=ppo"):
        with pytest.raises(RuntimeError, match=f"expected name:=value, got '{word}'"):
            parse_arguments([word])


def test_a_path_may_be_followed_by_arguments(launch_file: Path) -> None:
    assert resolve(str(launch_file), "a:=1", ["b:=2"]) == (launch_file, ["a:=1", "b:=2"])
    assert resolve(str(launch_file), None, []) == (launch_file, [])


def test_a_missing_file_or_package_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"no launch file './missing.launch.py'"):
        resolve("./missing.launch.py", None, [])
    with pytest.raises(RuntimeError, match="name a launch file of the package 'grpo_ros'"):
        resolve("grpo_ros", "algorithm:=ppo", [])
    with pytest.raises(RuntimeError, match="package 'no_such_package' not found"):
        resolve("no_such_package", "train.launch.py", [])


def test_a_file_is_found_anywhere_in_the_share_of_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "robot").touch()
    folder = tmp_path / "share" / "robot" / "launch"
    folder.mkdir(parents=True)
    (folder / "a.launch.py").touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    assert find_in_package("robot", "a.launch.py") == folder / "a.launch.py"
    with pytest.raises(RuntimeError, match=r"'robot' has no 'b.launch.py', but a.launch.py"):
        find_in_package("robot", "b.launch.py")
    (folder.parent / "a.launch.py").touch()
    with pytest.raises(RuntimeError, match="not unique"):
        find_in_package("robot", "a.launch.py")
