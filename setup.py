"""Describe the package to colcon (ament_python) and to pip."""

import re
import sys
from pathlib import Path

from setuptools import find_packages, setup

NAME = "grpo_ros"
ROOT = Path(__file__).resolve().parent
NODES = (
    "simulator_bridge",
    "batch_bridge",
    "learner",
    "policy_server",
    "evaluator",
    "rollout_player",
    "browser_view",
    "recorder",
)
IS_WHEEL = {"bdist_wheel", "editable_wheel"} & set(sys.argv)


def requirements(name: str) -> list[str]:
    """Return one set of requirements without its comments."""
    lines = (ROOT / "tools" / "requirements" / f"{name}.txt").read_text().splitlines()
    return [line for line in (re.sub(r"\s*#.*", "", line) for line in lines) if line]


def tree(folder: str) -> list[tuple[str, list[str]]]:
    """Return the files under `folder`, to be shared in the same folders."""
    by_folder: dict[str, list[str]] = {}
    for path in sorted((ROOT / folder).rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            relative = path.relative_to(ROOT)
            by_folder.setdefault(f"share/{NAME}/{relative.parent}", []).append(str(relative))
    return list(by_folder.items())


# A wheel ignores install_scripts, so ros2 run and launch need scripts in lib/grpo_ros;
# colcon keeps the console scripts there, so bin/ needs the command.
commands = (
    (f"lib/{NAME}", [f"scripts/{node}" for node in NODES])
    if IS_WHEEL
    else ("bin", ["tools/bin/grpo-ros"])
)

setup(
    name=NAME,
    version="0.1.0",
    description="Train robot policies with GRPO and PPO, and deploy them over ROS 2",
    license="Apache-2.0",
    maintainer="The grpo_ros maintainers",
    maintainer_email="maintainers@grpo-ros.example",
    python_requires=">=3.12,<3.13",  # the Python of ROS 2 Jazzy
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={
        NAME: [
            "py.typed",
            *(f"**/*.{suffix}" for suffix in ("urdf", "yaml", "xml", "stl", "html", "css")),
        ]
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        *tree("launch"),
        *tree("config"),
        commands,
    ],
    zip_safe=False,
    install_requires=requirements("runtime"),
    extras_require={name: requirements(name) for name in ("test", "isaaclab", "gr00t", "browser")},
    entry_points={
        "console_scripts": [
            *(f"{node} = {NAME}.nodes.start:{node}" for node in NODES),
            f"grpo-ros = {NAME}.cli:main",
        ]
    },
)
