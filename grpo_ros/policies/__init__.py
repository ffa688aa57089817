"""What decides: policies, and the normaliser they see through."""

from grpo_ros.policies.base import ActionSample, Observation, Policy, stack_samples
from grpo_ros.policies.flow import FlowConfig, FlowPolicy
from grpo_ros.policies.gaussian import GaussianConfig, GaussianPolicy
from grpo_ros.policies.registry import PolicyConfig, make_policy

__all__ = [
    "ActionSample",
    "FlowConfig",
    "FlowPolicy",
    "GaussianConfig",
    "GaussianPolicy",
    "Observation",
    "Policy",
    "PolicyConfig",
    "make_policy",
    "stack_samples",
]
