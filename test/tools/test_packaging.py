"""package.xml, setup.py, scripts/ and the Makefile describe one and the same package."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
DESCRIBE = """
import json, sys
from setuptools import Distribution
from distutils.core import run_setup
sys.argv = ["setup.py", *sys.argv[1:]]
setup = run_setup("setup.py", sys.argv[1:], stop_after="commandline")
print(json.dumps({
    "name": setup.get_name(), "version": setup.get_version(), "license": setup.get_license(),
    "description": setup.get_description(), "packages": setup.packages,
    "entry_points": setup.entry_points, "data_files": setup.data_files,
}))
"""


def describe(command: str) -> dict[str, Any]:
    """Return what setup.py says when it is called with this command."""
    done = subprocess.run(
        [sys.executable, "-c", DESCRIBE, command],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    description: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return description


@pytest.fixture(scope="module")
def setup() -> dict[str, Any]:
    return describe("build")


@pytest.fixture(scope="module")
def manifest() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


def scripts(setup: dict[str, Any]) -> dict[str, str]:
    """Return the console scripts, target by name."""
    return dict(line.split(" = ") for line in setup["entry_points"]["console_scripts"])


def test_the_manifest_is_of_format_3_and_complete(manifest: ElementTree.Element) -> None:
    assert manifest.tag == "package"
    assert manifest.get("format") == "3"
    assert manifest.findtext("export/build_type") == "ament_python"
    order = [element.tag for element in manifest]
    required = ["name", "version", "description", "maintainer", "license"]
    assert order[: len(required)] == required
    assert manifest.find("maintainer").get("email")  # type: ignore[union-attr]


def test_a_dependency_is_named_once(manifest: ElementTree.Element) -> None:
    names = [element.text for element in manifest if element.tag.endswith("depend")]
    assert len(names) == len(set(names))


def test_both_descriptions_agree(setup: dict[str, Any], manifest: ElementTree.Element) -> None:
    for key in ("name", "version", "license", "description"):
        assert setup[key] == manifest.findtext(key)
    assert (ROOT / "resource" / setup["name"]).is_file()
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]


def test_every_entry_point_can_be_called(setup: dict[str, Any]) -> None:
    for name, target in scripts(setup).items():
        module, function = target.split(":")
        assert callable(getattr(importlib.import_module(module), function)), name


def test_a_wheel_has_a_script_for_every_node(setup: dict[str, Any]) -> None:
    shared = dict(describe("bdist_wheel")["data_files"])
    nodes = {name for name in scripts(setup) if name != "grpo-ros"}
    assert {Path(path).name for path in shared["lib/grpo_ros"]} == nodes
    assert {path.name for path in (ROOT / "scripts").iterdir()} == nodes
    for path in shared["lib/grpo_ros"]:
        assert (ROOT / path).stat().st_mode & 0o111, f"{path} is not executable"


def test_every_launch_and_config_file_is_shared_in_its_folder(setup: dict[str, Any]) -> None:
    shared = {path for _, paths in setup["data_files"] for path in paths}
    for folder in ("launch", "config"):
        for path in (ROOT / folder).rglob("*"):
            relative = path.relative_to(ROOT)
            if path.is_file() and path.suffix != ".pyc":
                assert str(relative) in shared
                target = f"share/grpo_ros/{relative.parent}"
                assert str(relative) in dict(setup["data_files"])[target]


def test_every_folder_of_code_is_a_package(setup: dict[str, Any]) -> None:
    folders = {path.parent for path in (ROOT / "grpo_ros").rglob("*.py")}
    assert {".".join(f.relative_to(ROOT).parts) for f in folders} == set(setup["packages"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["train", "ALGORITHM=ppo", "SEED=1", "GROUP_SIZE=4", "ARGS=rviz:=true"],
            ["'algorithm:=ppo'", "'seed:=1'", "'group_size:=4'", "rviz:=true"],
        ),
        (
            ["deploy", "POLICY=a file.onnx", "EPISODES=100"],
            ["'policy:=a file.onnx'", "'episodes:=100'"],
        ),
        (["evaluate", "POLICY=x.onnx"], ["'policy:=x.onnx'"]),
        (["train"], []),
    ],
)
def test_settings_of_make_become_launch_arguments(words: list[str], expected: list[str]) -> None:
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    command = ["make", "--dry-run", *words]
    done = subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, text=True)
    line = next(line for line in done.stdout.splitlines() if "ros2 launch" in line)
    _, _, arguments = line.partition(f"{words[0]}.launch.py")
    for argument in expected:
        assert argument in arguments
        arguments = arguments.replace(argument, "")
    assert not arguments.strip()
