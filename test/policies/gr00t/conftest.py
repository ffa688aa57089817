"""A tiny GR00T checkpoint, made once, and copies of it that a test may damage."""

import shutil

import pytest
from gr00t_helpers import require_gr00t

from grpo_ros.policies.gr00t.checkpoint import read_checkpoint
from grpo_ros.policies.gr00t.loading import load_model, load_tokenizer
from grpo_ros.policies.gr00t.tiny_checkpoint import make_tiny_checkpoint

INSTRUCTION = "Pick up the red cube!"
STATE = {"arm": ([-2.0, -1.0, 0.5], [2.0, 1.5, 0.5]), "gripper": ([0.0], [0.04])}
ACTION = {"arm": ([-0.03, -0.03, -0.15], [0.03, 0.05, 0.15]), "gripper": ([-1.0], [1.0])}


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
