"""make_algorithm: the updater that a configuration describes."""

from __future__ import annotations

from grpo_ros.algorithms.base import Algorithm
from grpo_ros.algorithms.grpo import Grpo, GrpoConfig
from grpo_ros.policies.base import Policy

AlgorithmConfig = GrpoConfig
"""The configuration of any algorithm; its class says which."""


def make_algorithm(config: AlgorithmConfig, policy: Policy) -> Algorithm:
    """Return the updater that `config` describes, for a policy that it will change in place."""
    return Grpo(config, policy)
