"""Configurations of Isaac Lab environments: found, made fit for groups, held to local assets."""

from __future__ import annotations

import importlib
from typing import Any

from grpo_ros.errors import ConfigurationError, nearest
from grpo_ros.simulators.isaaclab.assets import refuse_remote
from grpo_ros.simulators.isaaclab.config import IsaacLabConfig
from grpo_ros.tasks.environment import EnvironmentConfig

MAX_DEPTH = 12
MODEL_EVENT = "randomize_"
"""How Isaac Lab calls the functions of its events that write to the engine's model."""
NEVER_S = 1e9
"""Longer than any episode, and finite: torch draws no number up to infinity."""


def environment_config(
    specification: str, num_envs: int, settings: EnvironmentConfig, config: IsaacLabConfig
) -> tuple[Any, list[str]]:
    """Return the configuration of N environments for groups, and what was changed in it.

    Args:
        specification: a registered id, or module:Class.
        num_envs: N.
        settings: of the task. config: of the simulator.

    Raises:
        ConfigurationError: no such configuration, or not one of a ManagerBasedRLEnv.
        RobotError: an asset of it would be fetched.
    """
    from isaaclab.envs import ManagerBasedRLEnvCfg

    found = _load(specification)
    if not isinstance(found, ManagerBasedRLEnvCfg):
        raise ConfigurationError(
            f"'{specification}' is a {type(found).__name__}",
            expected="the configuration of a ManagerBasedRLEnv",
            remedy="a DirectRLEnv keeps state of its own that no snapshot could hold",
        )
    found.scene.num_envs = num_envs
    found.scene.env_spacing = 0.0  # an environment's place would enter its float32 coordinates
    found.sim.device = config.device
    found.sim.use_newton_actuators = False  # the commands that those delay are in no row
    found.seed = 0
    if settings.episode_length_s:
        found.episode_length_s = settings.episode_length_s
    if not settings.fetch_assets:
        _refuse_remote_assets(found, "env", 0)
    return found, _make_repeatable(found)


def _load(specification: str) -> Any:
    module, colon, name = specification.partition(":")
    if colon:
        try:
            imported = importlib.import_module(module)
        except ImportError as problem:
            raise ConfigurationError(
                f"task 'isaaclab:{specification}': {problem}",
                expected="<importable module>:<class of the configuration>",
            ) from problem
        if not hasattr(imported, name):
            known = [other for other in vars(imported) if other.endswith("Cfg")]
            raise ConfigurationError(
                f"module '{module}' has no class '{name}'", remedy=nearest(name, known)
            )
        return getattr(imported, name)()
    import gymnasium

    importlib.import_module("isaaclab_tasks")
    if specification not in gymnasium.registry:
        known = [name for name in gymnasium.registry if name.startswith("Isaac-")]
        raise ConfigurationError(
            f"no environment is registered as '{specification}'",
            remedy=nearest(specification, known),
        )
    from isaaclab_tasks.utils.parse_cfg import load_cfg_from_registry

    return load_cfg_from_registry(specification, "env_cfg_entry_point")


def _make_repeatable(found: Any) -> list[str]:
    """Take out what makes members of a group, or a repeated episode, differ; return its names.

    That is what draws from a generator that all environments share, and what writes to the
    engine's model (masses, friction, gains), which no row holds.
    """
    changed = []
    for group in vars(found.observations).values():
        if getattr(group, "enable_corruption", False):
            group.enable_corruption = False
            changed.append("observation noise")
        for term in vars(group).values():
            if getattr(term, "delay_hold_prob", 1.0) < 1.0:
                term.delay_hold_prob = 1.0
                changed.append("changes of observation delays")
    for name, term in list(vars(found.events).items()) if found.events else []:
        if term is None:
            continue
        if term.mode != "reset" or _name_of(term.func).startswith(MODEL_EVENT):
            setattr(found.events, name, None)
            changed.append(f"event '{name}'")
        elif term.min_step_count_between_reset:
            term.min_step_count_between_reset = 0
            changed.append(f"resets without event '{name}'")
    if found.curriculum is not None:
        found.curriculum = None
        changed.append("curriculum")
    for name, term in _commands(found):
        if _hold_command(term, found.episode_length_s):
            changed.append(f"resampling of command '{name}'")
    return list(dict.fromkeys(changed))


def _name_of(function: Any) -> str:
    """Return the name of a term's function, which may be given as "module:name"."""
    return str(getattr(function, "__name__", function)).rsplit(":", 1)[-1]


def _commands(found: Any) -> list[tuple[str, Any]]:
    """Return the command terms by name; Isaac Lab takes them as a class or as a dict."""
    terms = found.commands or {}
    items = terms.items() if isinstance(terms, dict) else vars(terms).items()
    return [(name, term) for name, term in items if term is not None]


def _hold_command(term: Any, episode_length_s: float) -> bool:
    """Let a command stay as a reset drew it; return whether it would have been drawn again.

    It would be when a time is over, which a preset may give, or, of terms that have
    `update_goal_on_success`, when it is fulfilled.
    """
    after_s = term.resampling_time_range
    is_timed = not isinstance(after_s, list | tuple) or min(after_s) <= episode_length_s
    if is_timed:
        term.resampling_time_range = (NEVER_S, NEVER_S)
    is_renewed = bool(getattr(term, "update_goal_on_success", False))
    if is_renewed:
        term.update_goal_on_success = False
    return is_timed or is_renewed


def _refuse_remote_assets(node: Any, path: str, depth: int) -> None:
    """Raise RobotError for the first file in a tree of configurations that is not local."""
    if depth > MAX_DEPTH:
        return
    if isinstance(node, str):
        refuse_remote(node, f"'{path}' of the environment")
        return
    if isinstance(node, dict):
        items = list(node.items())
    elif isinstance(node, list | tuple):
        items = [(str(i), value) for i, value in enumerate(node)]
    elif hasattr(node, "__dataclass_fields__"):
        items = list(vars(node).items())
    else:
        return
    for name, value in items:
        _refuse_remote_assets(value, f"{path}.{name}", depth + 1)
