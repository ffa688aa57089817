"""Mixing: how much groups count against a critic, and why it changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from grpo_ros import typed
from grpo_ros.errors import CheckpointError, ConfigurationError

GROUPS, CRITIC = 1.0, 0.0
"""Weights of the groups where they alone count, and where the critic alone does."""


@dataclasses.dataclass(frozen=True)
class HybridConfig:
    """Settings of the hybrid. Groups and update are GRPO's (grpo), the critic is PPO's (ppo)."""

    mode: Literal["adaptive", "mix", "ppo_then_grpo"] = typed.setting(
        "adaptive",
        "adaptive: the critic judges once it explains enough; mix: both together; "
        "ppo_then_grpo: the critic until success is high enough, groups from then on",
    )
    group_weight: float = typed.setting(
        0.5, "mix: weight of the groups, lambda; 1 is GRPO", minimum=0.0, maximum=1.0
    )
    switch_success: float = typed.setting(
        0.7, "ppo_then_grpo: success while exploring that ends PPO", minimum=0.0, maximum=1.0
    )
    probe_every: int = typed.setting(
        5, "While the critic judges, one rollout in so many is in groups", minimum=1
    )
    smoothing: float = typed.setting(
        0.7, "Weight of the past in what is measured", minimum=0.0, maximum=0.99
    )
    patience: int = typed.setting(
        3, "Updates in a row that a reason must hold before it counts", unit="updates", minimum=1
    )
    critic_is_good: float = typed.setting(
        0.3,
        "adaptive: explained variance of lambda-returns from which the critic judges",
        maximum=1.0,
    )
    critic_is_bad: float = typed.setting(
        0.05, "adaptive: explained variance below which it no longer does", maximum=1.0
    )
    groups_are_useless: float = typed.setting(
        0.8,
        "adaptive: share of groups without difference from which the critic judges",
        minimum=0.0,
        maximum=1.0,
    )

    def __post_init__(self) -> None:
        if self.critic_is_bad >= self.critic_is_good:
            raise ConfigurationError(
                f"'critic_is_bad' = {self.critic_is_bad}",
                expected=f"below critic_is_good = {self.critic_is_good}, or it would switch "
                "to and fro",
            )


class Mixing:
    """Decides the weight of the groups before each rollout, from what was measured.

    What is measured is smoothed: x <- s x + (1 - s) new. A change needs its reason to hold for
    `patience` updates in a row, and the bounds for going and for coming back differ (hysteresis).

    Attributes:
        weight: of the groups in the next update; 1: they alone count, 0: the critic alone.
    """

    def __init__(self, config: HybridConfig) -> None:
        self.config = config
        start = {"mix": config.group_weight, "ppo_then_grpo": CRITIC, "adaptive": GROUPS}
        self.weight = start[config.mode]
        self.num_updates = self._held = 0
        self._measured: dict[str, float] = {}
        self._told: list[str] = []

    @property
    def is_grouped(self) -> bool:
        """Whether the next rollout is in groups: they count, or are looked at."""
        if self.weight > CRITIC:
            return True
        is_probe = self.num_updates % self.config.probe_every == 0
        return self.config.mode == "adaptive" and is_probe

    def observe(self, success: float, explained: float, zero_variance: float | None) -> None:
        """Take what an update measured, and decide.

        Args:
            success: share of rollouts that succeeded while exploring.
            explained: the critic's explained variance, before it learned from this rollout.
            zero_variance: share of groups whose members agree; None where there were no groups.
        """
        self.num_updates += 1
        explained = max(-1.0, explained)  # has no lower bound, and one bad update must be outlived
        new = {"success": success, "explained": explained, "zero_variance": zero_variance}
        for name, value in new.items():
            if value is not None:
                past, s = self._measured.get(name, value), self.config.smoothing
                self._measured[name] = s * past + (1.0 - s) * value
        wanted, reason = self._wanted()
        self._held = self._held + 1 if wanted != self.weight else 0
        if self._held >= self.config.patience:
            names = {GROUPS: "groups judge", CRITIC: "the critic judges"}
            self._told.append(f"update {self.num_updates}: {names[wanted]} from now on: {reason}")
            self.weight, self._held = wanted, 0

    def decisions(self) -> list[str]:
        """Return what was decided since the last call, with the reasons."""
        told, self._told = self._told, []
        return told

    def _wanted(self) -> tuple[float, str]:
        """Return the weight that the measurements ask for, and why."""
        config, measured = self.config, self._measured
        if config.mode == "mix":
            return self.weight, ""
        if config.mode == "ppo_then_grpo":
            success = measured["success"]
            if self.weight == CRITIC and success >= config.switch_success:
                return GROUPS, f"success {success:.2f} >= {config.switch_success:g}"
            return self.weight, ""
        explained, same = measured["explained"], measured.get("zero_variance", 0.0)
        is_usable = explained > config.critic_is_bad
        if self.weight == GROUPS and explained >= config.critic_is_good:
            return CRITIC, f"it explains {explained:.2f} >= {config.critic_is_good:g}"
        if self.weight == GROUPS and is_usable and same >= config.groups_are_useless:
            bound = config.groups_are_useless
            return CRITIC, f"{same:.0%} of the groups agree, at least {bound:.0%}"
        if self.weight == CRITIC and not is_usable and same < config.groups_are_useless:
            return GROUPS, f"the critic explains {explained:.2f} <= {config.critic_is_bad:g}"
        return self.weight, ""

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything that decides later weights, as flat tensors."""
        numbers = {"weight": self.weight, "num_updates": self.num_updates, "held": self._held}
        numbers |= {f"measured/{name}": value for name, value in self._measured.items()}
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict`.

        Raises:
            CheckpointError: something is missing.
        """
        try:
            self.weight = float(state["weight"])
            self.num_updates, self._held = int(state["num_updates"]), int(state["held"])
        except KeyError as missing:
            raise CheckpointError(f"the hybrid's state lacks {missing}") from None
        self._measured = {
            name.removeprefix("measured/"): float(value)
            for name, value in state.items()
            if name.startswith("measured/")
        }
