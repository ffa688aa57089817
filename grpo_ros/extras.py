"""Packages of the extras `gr00t`, LeRobot's datasets among them, and `browser`: late, quiet."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from grpo_ros.errors import MissingExtraError


def import_extra(module: str, wanted_by: str = "GR00T", extra: str = "gr00t") -> Any:
    """Return a module of an extra: lerobot, transformers, viser or what they need.

    Args:
        module: its whole name.
        wanted_by: what needs it, for the message.
        extra: that brings it.

    Raises:
        MissingExtraError: it, or something that it imports, is absent or of a wrong version.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, AttributeError) as problem:  # av >= 16 lacks what lerobot asks of it
        raise MissingExtraError(
            f"{wanted_by} needs the package {module.partition('.')[0]}, which cannot be imported "
            f"({problem})",
            remedy=f"`make setup EXTRAS={extra}`",
        ) from problem


@contextlib.contextmanager
def quiet_and_offline() -> Iterator[None]:
    """Keep transformers and lerobot from the network, from printing and from progress bars.

    Raises:
        MissingExtraError: they are not installed.
    """
    import logging

    constants = import_extra("huggingface_hub.constants")
    messages = import_extra("transformers.utils.logging")
    lerobot = logging.getLogger("lerobot")
    was_offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    verbosity, level = messages.get_verbosity(), lerobot.level
    had_progress_bar = messages.is_progress_bar_enabled()
    messages.set_verbosity_error()
    messages.disable_progress_bar()
    lerobot.setLevel(logging.ERROR)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = was_offline
        messages.set_verbosity(verbosity)
        lerobot.setLevel(level)
        if had_progress_bar:
            messages.enable_progress_bar()
