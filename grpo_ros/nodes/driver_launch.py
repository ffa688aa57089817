"""What the launch examples share: the policy server, and on request the robot's driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
)
from launch.launch_description_sources import AnyLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from grpo_ros import presets
from grpo_ros.errors import ConfigurationError, MissingExtraError
from grpo_ros.nodes import launching

Values = Mapping[str, str]


def example(
    robot: str,
    driver: Callable[[Values], Sequence[Any]],
    arguments: Sequence[DeclareLaunchArgument],
) -> LaunchDescription:
    """Return a launch description: deploy.launch.py for one robot, and its driver if asked for.

    Args:
        robot: name, given to deploy.launch.py.
        driver: returns what starts the driver, from the arguments' values.
        arguments: that the driver needs.
    """

    def start_driver(context: LaunchContext) -> list[Any]:
        values = context.launch_configurations
        if values["driver"] != "true":
            return []
        # A driver's own arguments must not become those of the policy server.
        return [GroupAction(list(driver(values)))]

    deploy = presets.share_directory() / "launch" / "deploy.launch.py"
    return LaunchDescription(
        [
            DeclareLaunchArgument("policy", description="ONNX file of the policy"),
            DeclareLaunchArgument(
                "driver",
                default_value="false",
                choices=launching.BOOLEANS,
                description="Also start the robot's driver and its controllers",
            ),
            *launching.discovery(),
            *arguments,
            OpaqueFunction(function=start_driver),
            IncludeLaunchDescription(
                AnyLaunchDescriptionSource(str(deploy)),
                launch_arguments={"policy": LaunchConfiguration("policy"), "robot": robot}.items(),
            ),
        ]
    )


def controllers_argument(robot: str) -> DeclareLaunchArgument:
    """Return the argument that names the controllers' file; ours by default."""
    return DeclareLaunchArgument(
        "controllers_file",
        default_value=str(controllers_file(robot)),
        description="ros2_control's controllers",
    )


def controllers_file(robot: str) -> Path:
    """Return the package's file of a robot's controllers."""
    return presets.share_directory() / "config" / "controllers" / f"{robot}.yaml"


def required(values: Values, name: str, what: str) -> str:
    """Return an argument's value, or raise ConfigurationError where it is empty."""
    if not values[name]:
        raise ConfigurationError(f"{name} is empty", expected=what, remedy=f"give {name}:=...")
    return values[name]


def include(
    package: str, launch_file: str, arguments: Values, remedy: str
) -> IncludeLaunchDescription:
    """Return the launch file of a driver's package.

    Raises:
        MissingExtraError: the package, or the file in it, is not found.
    """
    path = Path(package_share(package, remedy)) / "launch" / launch_file
    if not path.is_file():
        raise MissingExtraError(
            f"ROS package '{package}' has no launch/{launch_file}",
            expected="a version of the driver that has it",
            remedy=f"{remedy}; or start the driver yourself and leave driver:=true out",
        )
    return IncludeLaunchDescription(
        AnyLaunchDescriptionSource(str(path)), launch_arguments=dict(arguments).items()
    )


def package_share(package: str, remedy: str) -> str:
    """Return the share folder of a ROS package.

    Raises:
        MissingExtraError: it is not found; says how to get it.
    """
    try:
        return str(get_package_share_directory(package))
    except (PackageNotFoundError, LookupError, OSError) as problem:
        raise MissingExtraError(
            f"driver:=true needs the ROS package '{package}', which is not found",
            expected="the robot's driver, installed and sourced",
            remedy=remedy,
        ) from problem


def spawner(values: Values, controllers: Sequence[str], controller_args: str = "") -> Node:
    """Return what loads and activates controllers.

    Args:
        values: the arguments' values; gives the namespace.
        controllers: names.
        controller_args: ROS arguments of the controllers themselves.
    """
    more = ["--controller-ros-args", controller_args] if controller_args else []
    return Node(
        package="controller_manager",
        executable="spawner",
        namespace=values.get("namespace", ""),
        arguments=[*controllers, *more],
        output="screen",
    )
