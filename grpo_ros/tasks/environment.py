"""EnvironmentTask: an Isaac Lab environment of the user's, as a task.

`task:=isaaclab:<registered id>` or `task:=isaaclab:<module>:<Class of its configuration>`. What it
observes, commands and rewards is the environment's; what counts as success is named here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from grpo_ros import typed
from grpo_ros.contract import Contract
from grpo_ros.errors import ConfigurationError, TrainingError
from grpo_ros.randomness import Key
from grpo_ros.tasks.base import Body, Outcome, Randomisation
from grpo_ros.tasks.camera import Camera
from grpo_ros.tasks.range_scan import RangeScan
from grpo_ros.tasks.scene_state import SceneState

PREFIX = "isaaclab:"
SECTION = "environment"
"""Name of the settings of every such task."""
KEY = "key"
"""Reading of a sampled state: the key that the environment's own reset events draw from."""


@dataclasses.dataclass(frozen=True)
class EnvironmentConfig:
    """Settings of `task:=isaaclab:...`."""

    outcome: str = typed.setting(
        "", "What success is: a termination term, or module:function of the environment"
    )
    success_ends: bool = typed.setting(True, "Whether an episode ends once the outcome holds")
    score: str = typed.setting(
        "", "Partial credit in [0, 1]: module:function of the environment; empty: the outcome"
    )
    instruction: str = typed.setting("", "What is to be done, in words")
    observation_groups: tuple[str, ...] = typed.setting(
        ("policy",), "Observation groups that the policy sees"
    )
    action_scale: float = typed.setting(
        1.0, "What the environment is given for an action of 1", minimum=1e-6
    )
    chunk_size: int = typed.setting(1, "Actions per decision", minimum=1, maximum=64)
    episode_length_s: float = typed.setting(
        0.0, "Time limit; 0: the environment's own", unit="s", minimum=0.0
    )
    fetch_assets: bool = typed.setting(
        False, "Let assets be fetched from a server; without a network that hangs for minutes"
    )


class EnvironmentTask:
    """A task whose states, rewards and outcome an Isaac Lab environment computes itself.

    Args:
        name: `isaaclab:` and a registered id, or module and class of a configuration.
        config: what counts as success.

    Attributes:
        specification: the name without its prefix.

    Raises:
        ConfigurationError: no outcome is named.
    """

    Config = EnvironmentConfig
    robot: Any = None
    randomisation = Randomisation()

    def __init__(self, name: str, config: EnvironmentConfig | None = None) -> None:
        self.name, self.config = name, config or EnvironmentConfig()
        self.specification = name.removeprefix(PREFIX)
        if not self.config.outcome:
            raise ConfigurationError(
                f"task '{name}' names no outcome",
                expected="what success is, as a termination term or module:function",
                remedy="task.outcome:=<name>, e.g. task.outcome:=success",
            )
        self.instruction = self.config.instruction or f"Succeed in {self.specification}."
        self.horizon = 0
        self.reward_names: tuple[str, ...] = ("outcome",)
        self._contract: Contract | None = None

    def bind(self, contract: Contract, reward_names: tuple[str, ...]) -> None:
        """Take what only the built environment knows."""
        self._contract, self.reward_names = contract, reward_names
        self.horizon = contract.horizon

    @property
    def is_bound(self) -> bool:
        """Whether the environment is built, here or in the bridge's process."""
        return self._contract is not None

    def bodies(self) -> Sequence[Body]:
        """Return nothing: the environment brings its own scene."""
        return ()

    def sensors(self) -> Sequence[RangeScan]:
        """Return nothing: the environment brings its own sensors."""
        return ()

    def cameras(self) -> Sequence[Camera]:
        """Return nothing: the environment brings its own cameras."""
        return ()

    def contract(self) -> Contract:
        """Return what the environment observes and commands.

        Raises:
            ConfigurationError: the environment is not built yet.
        """
        if self._contract is None:
            raise ConfigurationError(
                f"the contract of '{self.name}' is known once its environment is built",
                remedy="simulator:=isaaclab",
            )
        return self._contract

    def sample(self, keys: Sequence[Key]) -> SceneState:
        """Return one initial state per key: the key itself, as the reading KEY (N, 4) int64."""
        nothing = torch.zeros(len(keys), 0, dtype=torch.float64)
        key = torch.tensor([list(key) for key in keys], dtype=torch.long).reshape(-1, 4)
        return SceneState((), nothing, nothing, {}, {}, {KEY: key})

    def outcome(self, scene: SceneState) -> Outcome:
        """Refuse: outcomes are the environment's."""
        raise TrainingError(f"the outcome of '{self.name}' is computed by its environment")

    def reward_terms(
        self, before: SceneState, after: SceneState, action: Tensor, outcome: Outcome
    ) -> Mapping[str, Tensor]:
        """Refuse: rewards are the environment's."""
        raise TrainingError(f"the rewards of '{self.name}' are computed by its environment")

    def demonstrate(self, scene: SceneState, controller_state: Mapping[str, Tensor]) -> Tensor:
        """Refuse: an environment brings no demonstrator."""
        raise TrainingError(
            f"'{self.name}' has no demonstrator", remedy="demonstrations.episodes:=0"
        )
