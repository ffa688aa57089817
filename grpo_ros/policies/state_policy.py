"""StatePolicy: what policies on float32 observations share."""

from __future__ import annotations

import abc

import torch
from torch import Tensor, nn

from grpo_ros.contract import Contract
from grpo_ros.errors import ContractError
from grpo_ros.policies.base import ActionSample, Observation
from grpo_ros.policies.features import state_features
from grpo_ros.policies.normal import normal_log_prob
from grpo_ros.policies.normaliser import Normaliser


class StatePolicy(nn.Module, abc.ABC):
    """A policy whose sample is one draw from a diagonal normal, given what it saw.

    Implements grpo_ros.policies.base.Policy.
    """

    contract: Contract
    noise_shape: tuple[int, ...]

    def __init__(self, contract: Contract, noise_shape: tuple[int, ...]) -> None:
        """Take the contract that names what is seen and commanded.

        Raises:
            ContractError: nothing is seen or commanded, or a field is not float32.
        """
        super().__init__()
        unseen = [f.name for f in contract.observation if f.dtype != "float32"]
        if unseen:
            raise ContractError(
                f"fields {unseen} are not float32",
                expected="states only",
                remedy="choose a policy that sees images, or a contract without them",
            )
        if contract.state_size == 0 or contract.action_size == 0:
            raise ContractError("contract without observation or without action")
        self.contract = contract
        self.noise_shape = noise_shape
        self.normaliser = Normaliser(contract.state_size)

    @property
    def chunk_shape(self) -> tuple[int, int]:
        """(K, A)."""
        return self.contract.chunk_size, self.contract.action_size

    def features(self, obs: Observation) -> Tensor:
        """Return the observation as raw features (N, O)."""
        return state_features(obs, self.contract)

    def log_prob(self, obs: Observation, sample: ActionSample) -> Tensor:
        """Return the log-likelihood (N, K) of sampled chunks under the present parameters."""
        mean, std = self.distribution(obs, sample)
        return normal_log_prob(self.sampled_value(sample), mean, std)

    def mode(self, obs: Observation) -> Tensor:
        """Return the deployed chunk (N, K, A) in [-1, 1], without noise."""
        features = self.features(obs)
        zeros = torch.zeros(features.shape[0], *self.chunk_shape, device=features.device)
        return self.decide(obs, zeros)

    def constrain(self) -> None:
        """Project the parameters onto their range; called after every optimiser step."""

    @abc.abstractmethod
    def act(self, obs: Observation, noise: Tensor) -> ActionSample:
        """Sample chunks; `noise` (N, *noise_shape) float32 standard normal decides the sample."""

    @abc.abstractmethod
    def decide(self, obs: Observation, noise: Tensor) -> Tensor:
        """Return the deployed chunk (N, K, A) in [-1, 1] from deployment noise (N, K, A)."""

    @abc.abstractmethod
    def distribution(self, obs: Observation, sample: ActionSample) -> tuple[Tensor, Tensor]:
        """Return mean (N, K, A) and std (broadcastable) of the normal that gave the sample."""

    @abc.abstractmethod
    def sampled_value(self, sample: ActionSample) -> Tensor:
        """Return what was drawn from `distribution`, (N, K, A)."""

    @abc.abstractmethod
    def entropy(self, obs: Observation) -> Tensor:
        """Return the entropy (N,) of one step of the chunk, in nats."""

    @abc.abstractmethod
    def bc_loss(
        self, obs_features: Tensor, chunk: Tensor, weight: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return the behaviour-cloning loss, a scalar.

        Args:
            obs_features: (B, O) float32, raw.
            chunk: (B, K, A) float32, demonstrated.
            weight: (B, K) float32, 0 where a step was not demonstrated.
            generator: on the CPU; all randomness of the loss.
        """
