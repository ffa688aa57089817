"""Runs a launch file of the source tree as `ros2 launch` does: FILE name:=value ..."""

import sys

from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource


def main():
    path, *arguments = sys.argv[1:]
    service = LaunchService(argv=arguments, noninteractive=True)
    pairs = [tuple(argument.split(":=", 1)) for argument in arguments]
    source = AnyLaunchDescriptionSource(path)
    service.include_launch_description(
        LaunchDescription([IncludeLaunchDescription(source, launch_arguments=pairs)])
    )
    return service.run()


if __name__ == "__main__":
    sys.exit(main())
