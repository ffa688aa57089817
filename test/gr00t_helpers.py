"""What tests of GR00T policies share: when they can run."""

import importlib.util

import pytest

PACKAGES = ("lerobot", "transformers", "diffusers", "peft", "tree", "av")


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
