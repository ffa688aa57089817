"""What tests of GR00T policies share: when they can run, and what their checkpoint is made of."""

import importlib.util

import pytest

PACKAGES = ("lerobot", "transformers", "diffusers", "peft", "tree", "av")

INSTRUCTION = "Pick up the red cube!"
STATE = {"arm": ([-2.0, -1.0, 0.5], [2.0, 1.5, 0.5]), "gripper": ([0.0], [0.04])}
ACTION = {"arm": ([-0.03, -0.03, -0.15], [0.03, 0.05, 0.15]), "gripper": ([-1.0], [1.0])}
"""Group -> (low, high); the arm's third state never varied."""


def missing_packages():
    """Return the packages of the extra that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def require_gr00t():
    """Skip the calling test, fixture or module where the extra is not installed."""
    if missing := missing_packages():
        pytest.skip(
            f"GR00T's packages are not installed ({', '.join(missing)}): make gr00t",
            allow_module_level=True,
        )
