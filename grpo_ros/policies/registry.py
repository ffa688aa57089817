"""make_policy: the policy that a configuration describes."""

from __future__ import annotations

import torch

from grpo_ros.contract import Contract
from grpo_ros.policies.chunk_policy import ChunkPolicy
from grpo_ros.policies.flow import FlowConfig, FlowPolicy
from grpo_ros.policies.gaussian import GaussianConfig, GaussianPolicy
from grpo_ros.policies.gr00t.config import Gr00tConfig

PolicyConfig = GaussianConfig | FlowConfig | Gr00tConfig
"""The configuration of any policy; its class says which."""


def make_policy(
    config: PolicyConfig, contract: Contract, generator: torch.Generator | None = None
) -> ChunkPolicy:
    """Build a policy in evaluation mode, on the CPU unless its configuration says otherwise.

    Args:
        config: its class decides the kind of policy.
        contract: what is observed and commanded.
        generator: decides the initial weights; the same ones every time if absent.

    Raises:
        ContractError: the policy cannot see or command what the contract names.
        CheckpointError: a pretrained policy's checkpoint cannot be used.
        MissingExtraError: a pretrained policy's packages are not installed.
    """
    generator = generator or torch.Generator().manual_seed(0)
    if isinstance(config, Gr00tConfig):
        from grpo_ros.policies.gr00t.policy import Gr00tPolicy

        return Gr00tPolicy(config, contract, generator)
    if isinstance(config, FlowConfig):
        return FlowPolicy(config, contract, generator).eval()
    return GaussianPolicy(config, contract, generator).eval()
