"""activate.sh says what to do where there is no environment, and leaves the shell alone."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_without_an_environment_the_remedy_is_named(tmp_path: Path) -> None:
    shutil.copy(ROOT / "activate.sh", tmp_path)
    script = f"source {tmp_path}/activate.sh; echo status $?; set | grep -c ^_grpo_"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr == "activate.sh: there is no environment yet. Remedy: make setup\n"
    assert done.stdout == "status 1\n0\n"


def test_another_ros_in_the_shell_is_set_aside_and_said(tmp_path: Path) -> None:
    shutil.copy(ROOT / "activate.sh", tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    script = (
        f"set -eu; source {tmp_path}/activate.sh; source {tmp_path}/activate.sh; "
        "echo $ROS_DISTRO $AMENT_PREFIX_PATH $PYTHONPATH $-"
    )
    env = {"PATH": "/usr/bin:/bin", "ROS_DISTRO": "humble", "PYTHONPATH": "/opt/ros/humble/lib"}
    done = subprocess.run(
        ["bash", "-c", script], env=env, capture_output=True, text=True, check=True
    )
    assert done.stderr == "activate.sh: the other ROS 2 humble in this shell is set aside\n"
    distro, prefix, python_path, flags = done.stdout.split()
    assert distro == "jazzy"
    assert prefix.startswith(str(tmp_path)) and ":" not in prefix
    assert python_path == f"{prefix}/rclpy"
    assert "u" in flags
