"""docs/reference/safety_gate.md names every kind that the code can give, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from grpo_ros.deployment.safety import faults, gate, limiter, stream_gate, twist_gate
from grpo_ros.deployment.safety.geometry import ArmGeometry
from grpo_ros.deployment.safety.stream_gate import Intervention
from grpo_ros.robots.robot import load_robot

MODULES = stream_gate, gate, twist_gate
PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "safety_gate.md"


def table(heading: str) -> set[str]:
    """Return the kinds in the first column of the table below a heading."""
    section = PAGE.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))


def counted() -> set[str]:
    """Return the kinds that stand as literals where interventions are counted or limits named."""
    text = "".join(Path(str(module.__file__)).read_text() for module in MODULES)
    found = set(re.findall(r'_(?:count|refuse)\(\s*"(\w+)"', text))
    return found | set(re.findall(r'^            "(\w+)": moved', _source(limiter), re.MULTILINE))


def _source(module: object) -> str:
    return Path(str(module.__file__)).read_text()  # type: ignore[attr-defined]


def test_every_intervention_of_the_code_has_a_row_and_a_remedy() -> None:
    robot = load_robot("ur5e")
    kinds = counted() | set(ArmGeometry(robot, 0.05, 1.0).kinds)
    assert {"velocity", "workspace", "names", "gripper", "tip_speed"} <= kinds
    assert table("What it says") == kinds


def test_the_kinds_that_the_code_documents_are_those_of_the_page() -> None:
    text = (Intervention.__doc__ or "").split("`kind` is ")[1]
    assert set(re.findall(r"\w+", text)) - {"or"} == table("What it says")


def test_every_fault_has_a_row() -> None:
    found = set(re.findall(r'Fault\(\s*"(\w+)"', _source(faults)))
    assert table("What ends a run") == found | {"stopped"}


def test_the_page_is_short() -> None:
    assert len(PAGE.read_text().splitlines()) <= 120
