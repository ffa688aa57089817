"""The tables of faults name tests that exist, and every id has one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "docs" / "reference" / "faults.md"
NAMED = re.compile(r"`(test/[\w/]+\.py)::(\w+)`")


TRAINING = TABLE.with_name("training_faults.md")


def rows(table: Path = TABLE) -> list[list[str]]:
    lines = [line for line in table.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def claims_of(path: Path) -> dict[str, str]:
    """Return name -> docstring of a file's tests."""
    tree = ast.parse(path.read_text())
    return {
        node.name: ast.get_docstring(node) or ""
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize(("path", "least"), [(TABLE, 20), (TRAINING, 15)])
def test_every_fault_names_a_test_that_exists(path: Path, least: int) -> None:
    table = rows(path)
    assert len(table) >= least
    for row in table:
        assert len(row) == 5, row
        found = NAMED.findall(row[4])
        assert found, f"{row[0]} names no test"
        for file, name in found:
            assert name in claims_of(ROOT / file), f"{row[0]}: no test {file}::{name}"


def test_every_test_of_the_matrix_is_in_the_table() -> None:
    named = {name: row[0] for row in rows() for _, name in NAMED.findall(row[4])}
    for path in (ROOT / "test" / "nodes").glob("test_fault_matrix*.py"):
        for name, doc in claims_of(path).items():
            assert name in named, f"{path.name}::{name} is not in {TABLE.name}"
            assert named[name] in doc.split(":")[0], f"{path.name}::{name} has another id"


def test_every_fault_of_training_is_there() -> None:
    assert {row[0] for row in rows(TRAINING)} >= {"R1", "R2", "R3", "R10", "R11", "R12"}


def test_every_fault_of_deployment_is_there() -> None:
    ids = {row[0] for row in rows()}
    assert {f"R{number}" for number in range(1, 10)} <= ids
