"""A tiny GR00T checkpoint, made once, and copies of it that a test may damage."""

import shutil
from pathlib import Path

import pytest
from gr00t_helpers import ACTION, INSTRUCTION, STATE, require_gr00t

from grpo_ros.policies.gr00t.files.checkpoint import read_checkpoint
from grpo_ros.policies.gr00t.files.tiny_checkpoint import make_tiny_checkpoint
from grpo_ros.policies.gr00t.loading import load_model, load_tokenizer

FOLDER = Path(__file__).parent
IMPORT_TIMEOUT_S = 300
"""Whichever test comes first imports the packages: 20 s, some times that on a busy machine."""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(FOLDER):
            item.add_marker(pytest.mark.timeout(IMPORT_TIMEOUT_S))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A checkpoint with two cameras, two groups of states and of actions; not to be changed."""
    require_gr00t()
    return make_tiny_checkpoint(
        tmp_path_factory.mktemp("gr00t") / "tiny",
        cameras=("front", "wrist"),
        state=STATE,
        action=ACTION,
        action_horizon=16,
        instructions=INSTRUCTION,
    )


@pytest.fixture
def copied_folder(tiny_folder, tmp_path):
    """A copy of it."""
    return shutil.copytree(tiny_folder, tmp_path / "copy")


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_folder):
    return read_checkpoint(tiny_folder)


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_checkpoint):
    return load_tokenizer(tiny_checkpoint)


@pytest.fixture(scope="session")
def tiny_model(tiny_checkpoint):
    """Its model in float32; not to be changed."""
    return load_model(tiny_checkpoint)
