"""The configuration of a run: layers of settings, merged into one typed tree.

Defaults < simulators/<simulator>.yaml < tasks/<task>.yaml < tasks/<task>_<difficulty>.yaml
< policies/<policy>.yaml < the user's file < overrides. After each
layer the whole tree is checked, so that a mistake is reported with the layer that it is in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from grpo_ros import presets, typed
from grpo_ros.algorithms.hybrid import HybridSettings
from grpo_ros.algorithms.registry import AlgorithmConfig
from grpo_ros.errors import ConfigurationError, nearest
from grpo_ros.layers import Layer, merge
from grpo_ros.overrides import insert, leaves, load_yaml, parse_override
from grpo_ros.training.settings import (
    SECTIONS_BY_SELECTOR,
    SECTIONS_USED_TOO,
    WITHOUT_EFFECT_ON_RESULTS,
    TrainConfig,
    section_name,
)

__all__ = [
    "Layer",
    "algorithm_settings",
    "check_is_for_learner",
    "chosen_settings",
    "config_hash",
    "is_ros_file",
    "leaves",
    "load_config",
    "merge",
    "read_layer",
    "section",
    "simulated_settings",
    "to_yaml",
]

COMMAND_LINE, LEARNER = "command line", "learner"
PRESET_FOLDERS = {
    "simulator": "simulators",
    "task": "tasks",
    "policy": "policies",
}
"""Selector -> folder of its presets in config/."""
SHORT_NAMES = {
    "group_size": "collection.group_size",
    "num_groups": "collection.num_groups",
    "env_steps": "collection.env_steps",
    "num_threads": "mujoco.num_threads",
    "backend": "isaaclab.backend",
    "device": "isaaclab.device",
    "placement": "bridge.placement",
    "robot": "task.robot",
    "policy_path": "gr00t.policy_path",
    "randomise": "task.randomisation.enabled",
}
"""What an override may say instead of a dotted key."""


def load_config(
    overrides: Sequence[str] = (),
    params_file: Path | str | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """Return the configuration that presets, a file and overrides make.

    Args:
        overrides: `key=value` or `key:=value`; a dotted key or one of SHORT_NAMES; `task.x` is
            setting x of the chosen task, and so for algorithm, policy and simulator; of what is
            made of others, in each that has it.
        params_file: YAML of the same tree, plain or under `/**: ros__parameters:`.
        parameters: dotted key -> value, as ROS parameters are; above the file, below overrides.

    Raises:
        ConfigurationError: an unknown key or a bad value; names it, what was expected, the
            nearest match, and where it came from.
    """
    user = [read_layer(Path(params_file))] if params_file else []
    if parameters:
        tree: dict[str, Any] = {}
        for key, value in parameters.items():
            insert(tree, key, value)
        user.append(Layer("ROS parameters", tree))
    chosen = _selectors([*user, *_keyed_overrides(overrides, SECTIONS_BY_SELECTOR)])
    asked = [*user, *_keyed_overrides(overrides, ("difficulty",))]
    difficulty = [str(layer.tree["difficulty"]) for layer in asked if "difficulty" in layer.tree]
    layers = []
    for selector, folder in PRESET_FOLDERS.items():
        if (path := presets.preset_file(folder, chosen[selector])) is not None:
            layers.append(read_layer(path))
        if selector == "task" and difficulty and difficulty[-1]:
            layers.append(read_layer(_difficulty_preset(chosen["task"], difficulty[-1])))
    for layer in layers:
        _refuse_selectors(layer)
    command: dict[str, Any] = {}
    for text in overrides:
        for each in _spread(text, chosen):
            key, value = parse_override(TrainConfig, each, SHORT_NAMES, chosen)
            insert(command, key, value)
    return merge(TrainConfig, [*layers, *user, Layer(COMMAND_LINE, command)])


def read_layer(path: Path) -> Layer:
    """Return the settings in a YAML file, whether plain or a ROS 2 parameter file.

    Of a parameter file that is what stands under `learner` or a wildcard.

    Raises:
        ConfigurationError: the file cannot be read, or is not a mapping.
    """
    return Layer(str(path), _without_ros(_read(path)))


def is_ros_file(path: Path) -> bool:
    """Return whether a YAML file has the form of a ROS 2 parameter file."""
    return _is_ros(_read(path))


def check_is_for_learner(path: Path) -> None:
    """Raise ConfigurationError where a ROS 2 parameter file is for other nodes alone."""
    tree = _read(path)
    if _is_ros(tree) and not any(_is_learners(node) for node in tree):
        raise ConfigurationError(
            f"{path} has parameters of {', '.join(tree)}",
            expected=f"of '{LEARNER}' or a wildcard, or plain settings",
            remedy=f"put what is meant for training under '{LEARNER}: ros__parameters:'",
        )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        tree = load_yaml(path.read_text())
    except OSError as problem:
        raise ConfigurationError(
            f"{path}: {problem.strerror}", expected="a YAML file of settings"
        ) from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8 text", expected="a text file") from None
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise ConfigurationError(
            f"{path}{where} is not YAML: {getattr(problem, 'problem', problem)}"
        ) from None
    if tree is None:
        tree = {}
    if not isinstance(tree, Mapping):
        raise ConfigurationError(f"{path} holds {tree!r}", expected="a mapping of settings")
    return tree


def section(config: TrainConfig, selector: str) -> Any:
    """Return the settings of what a selector (task, algorithm, policy, simulator) chose."""
    value = getattr(config, selector)
    return getattr(config, section_name(selector, value) or value)


def algorithm_settings(config: TrainConfig) -> AlgorithmConfig:
    """Return what `make_algorithm` takes: of a hybrid also what it is made of."""
    if config.algorithm == "hybrid":
        return HybridSettings(config.hybrid, config.grpo, config.ppo)
    settings: AlgorithmConfig = section(config, "algorithm")
    return settings


def to_yaml(config: Any) -> str:
    """Return settings, typed or a tree, as YAML; `read_layer` and `merge` give them back."""
    text: str = yaml.safe_dump(typed.encode(config), sort_keys=False)
    return text


def chosen_settings(config: TrainConfig) -> dict[str, Any]:
    """Return the settings without the sections of what was not chosen, as a tree.

    `merge` gives back a configuration that chooses the same, also where other tasks are known.
    """
    tree: dict[str, Any] = typed.encode(config)
    for selector, sections in SECTIONS_BY_SELECTOR.items():
        chosen = section_name(selector, getattr(config, selector)) or ""
        for name in sections:
            if name not in (chosen, *SECTIONS_USED_TOO.get(chosen, ())):
                tree.pop(name, None)
    return tree


def deciding_settings(config: TrainConfig) -> dict[str, Any]:
    """Return all settings that decide results, as a tree; `merge` gives them back.

    Left out are paths, `resume`, thread counts, and the sections of what was not chosen.
    """
    tree = chosen_settings(config)
    for key in WITHOUT_EFFECT_ON_RESULTS:
        *parents, last = key.split(".")
        branch = tree
        for parent in parents:
            branch = branch.get(parent, {})
        branch.pop(last, None)
    return tree


def simulated_settings(config: TrainConfig) -> dict[str, Any]:
    """Return dotted key -> value of all settings that decide what a simulator does and judges.

    Left out is the robot's folder, which may lie elsewhere on another host: what is in it is part
    of the contract.
    """
    found: dict[str, Any] = {}
    for selector in ("task", "simulator"):
        found[selector] = value = getattr(config, selector)
        name = section_name(selector, value) or value
        of_section = leaves(section(config, selector), f"{name}.")
        found.update((leaf.key, typed.encode(leaf.default)) for leaf in of_section)
        found.pop(f"{name}.robot", None)
    return {key: found[key] for key in found if key not in WITHOUT_EFFECT_ON_RESULTS}


def config_hash(config: TrainConfig) -> str:
    """Return the SHA-256 of all settings that decide results."""
    canonical = json.dumps(deciding_settings(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _is_ros(tree: Mapping[str, Any]) -> bool:
    return bool(tree) and all(
        isinstance(node, Mapping) and "ros__parameters" in node for node in tree.values()
    )


def _is_learners(node: str) -> bool:
    return node.rsplit("/", 1)[-1] in (LEARNER, "*", "**")


def _without_ros(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what stands under `<node>: ros__parameters:`, or a plain tree itself."""
    if not _is_ros(tree):
        return tree
    found: dict[str, Any] = {}
    for node, parameters in tree.items():
        if not _is_learners(node):
            continue
        for key, value in (parameters["ros__parameters"] or {}).items():
            if key != "use_sim_time":
                insert(found, str(key), value)
    return found


def _difficulty_preset(task: str, difficulty: str) -> Path:
    """Return config/tasks/<task>_<difficulty>.yaml, or raise naming those there are."""
    path = presets.preset_file("tasks", f"{task}_{difficulty}")
    if path is None:
        start = f"{task}_"
        names = [name for name in presets.preset_names("tasks") if name.startswith(start)]
        known = [name.removeprefix(start) for name in names]
        raise ConfigurationError(
            f"'difficulty' = '{difficulty}' of task '{task}'",
            expected=" | ".join(known) or "none: this task has one difficulty",
        )
    return path


def _spread(text: str, chosen: Mapping[str, str]) -> list[str]:
    """Return an override for each section that it is about; `algorithm.x` of a hybrid: several."""
    selector, dot, rest = text.partition(".")
    used = SECTIONS_USED_TOO.get(chosen.get(selector.strip(), ""), ())
    if not dot or not used:
        return [text]
    name = rest.partition("=")[0].rstrip(": ")
    known = {leaf.key for leaf in leaves(TrainConfig())}
    sections = [s for s in (chosen[selector.strip()], *used) if f"{s}.{name}" in known]
    return [f"{section}.{rest}" for section in sections] or [text]


def _keyed_overrides(overrides: Sequence[str], keys: Collection[str]) -> list[Layer]:
    tree = {}
    for text in overrides:
        key, found, value = text.partition("=")
        if found and key.rstrip(":").strip() in keys:
            tree[key.rstrip(":").strip()] = value.strip()
    return [Layer(COMMAND_LINE, tree)]


def _selectors(layers: Sequence[Layer]) -> dict[str, str]:
    """Return the section that each selector chooses, checked."""
    chosen = {name: str(getattr(TrainConfig(), name)) for name in SECTIONS_BY_SELECTOR}
    for layer in layers:
        for selector, sections in SECTIONS_BY_SELECTOR.items():
            if selector not in layer.tree:
                continue
            value = layer.tree[selector]
            name = section_name(selector, str(value))
            if name is None:
                raise ConfigurationError(
                    f"'{selector}' = {value!r} ({layer.origin})",
                    expected=" | ".join(sections),
                    remedy=nearest(str(value), sections),
                )
            chosen[selector] = name
    return chosen


def _refuse_selectors(layer: Layer) -> None:
    for selector in SECTIONS_BY_SELECTOR:
        if selector in layer.tree:
            raise ConfigurationError(
                f"'{selector}' = {layer.tree[selector]!r} ({layer.origin})",
                expected="no choice of task, algorithm, policy or simulator in a preset",
            )
