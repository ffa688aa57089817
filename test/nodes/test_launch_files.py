"""Launch files: every argument is described, and the common ones are there."""

from pathlib import Path

import pytest

pytest.importorskip("launch_ros")
from launch import LaunchContext
from launch.launch_description_sources import PythonLaunchDescriptionSource

pytestmark = pytest.mark.ros

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
COMMON = {"namespace", "use_sim_time", "params_file", "autostart", "log_level", "rviz"}
OWN = {
    "replay": {"run", "rollout", "members"},
    "train": {
        "task",
        "algorithm",
        "policy",
        "simulator",
        "placement",
        "group_size",
        "seed",
        "resume",
        "browser",
        "browser_port",
    },
    "evaluate": {"policy", "episodes", "seed"},
    "protocol": {"study", "quick", "phases", "tasks", "seeds", "workers", "output", "settings"},
}


@pytest.mark.parametrize("name", OWN)
def test_every_argument_is_described(name):
    source = PythonLaunchDescriptionSource(str(LAUNCH / f"{name}.launch.py"))
    description = source.get_launch_description(LaunchContext())
    arguments = {argument.name: argument for argument in description.get_launch_arguments()}
    assert COMMON | OWN[name] <= set(arguments)
    assert all(len(argument.description) > 5 for argument in arguments.values())
