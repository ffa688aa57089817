"""The `ros2` command and its `launch` verb, for a ROS 2 that ships ros2cli as a library only.

Kept apart from grpo_ros so that an official installation never meets it; where ros2launch exists
the verb is left out.
"""

from importlib.util import find_spec

from setuptools import setup

verbs = [] if find_spec("ros2launch") else ["launch = grpo_ros_cli_shim.launch:LaunchCommand"]

setup(
    name="grpo-ros-cli-shim",
    version="0.1.0",
    description="The ros2 command and its launch verb, where a ROS 2 installation lacks them",
    license="Apache-2.0",
    packages=["grpo_ros_cli_shim"],
    entry_points={
        "console_scripts": ["ros2 = grpo_ros_cli_shim.command:main"],
        "ros2cli.command": verbs,
    },
)
