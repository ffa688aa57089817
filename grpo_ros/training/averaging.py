"""PolicyAverage: the deployed policy is a running average of the learner's iterates."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from grpo_ros.distributed.tensors import local, placed_tree
from grpo_ros.policies.chunk_policy import ChunkPolicy


class PolicyAverage:
    """Averages a policy's parameters over iterations.

    theta_bar <- d theta_bar + (1 - d) theta with d = min(decay, n / (n + 1)): the plain mean of
    the first iterates, then an exponential one. Each iterate wanders around what the last ones
    have in common; the average does not (Polyak and Juditsky, "Acceleration of stochastic
    approximation by averaging", SIAM J. Control Optim. 1992).

    Args:
        policy: what is learned; only read.
        decay: weight of the past, in [0, 1); 0 deploys the last iterate.
    """

    def __init__(self, policy: ChunkPolicy, decay: float) -> None:
        self.decay, self.num_updates = decay, 0
        self.policy = copy.deepcopy(policy)

    def start(self, policy: ChunkPolicy) -> None:
        """Begin at a policy: its parameters and normaliser, nothing averaged yet."""
        self.policy.load_state_dict(policy.state_dict())
        self.num_updates = 0

    def update(self, policy: ChunkPolicy) -> None:
        """Take the parameters of one more iterate."""
        self.num_updates += 1
        decay = min(self.decay, self.num_updates / (self.num_updates + 1))
        with torch.no_grad():
            pairs = zip(self.policy.parameters(), policy.parameters(), strict=True)
            for average, latest in pairs:
                if average is not latest:  # a copy shares what is not trained
                    local(average).lerp_(local(latest), 1.0 - decay)

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged policy and how many iterates are in it."""
        return {"policy": dict(self.policy.state_dict()), "num_updates": self.num_updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.policy.load_state_dict(placed_tree(state["policy"], self.policy.state_dict()))
        self.num_updates = int(state["num_updates"])
