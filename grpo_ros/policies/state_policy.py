"""StatePolicy: what policies on float32 observations share."""

from __future__ import annotations

from torch import Tensor

from grpo_ros.contract import Contract
from grpo_ros.errors import ContractError
from grpo_ros.policies.base import Observation
from grpo_ros.policies.chunk_policy import ChunkPolicy
from grpo_ros.policies.features import state_features
from grpo_ros.policies.normaliser import Normaliser


class StatePolicy(ChunkPolicy):
    """A policy on float32 fields, side by side and normalised."""

    def __init__(self, contract: Contract, noise_shape: tuple[int, ...]) -> None:
        """Take the contract that names what is seen and commanded.

        Raises:
            ContractError: nothing is seen or commanded, or a field is not float32.
        """
        super().__init__(contract, noise_shape)
        unseen = [f.name for f in contract.observation if f.dtype != "float32"]
        if unseen:
            raise ContractError(
                f"fields {unseen} are not float32",
                expected="states only",
                remedy="choose a policy that sees images, or a contract without them",
            )
        if contract.state_size == 0 or contract.action_size == 0:
            raise ContractError("contract without observation or without action")
        self.num_features = contract.state_size
        self.normaliser = Normaliser(contract.state_size)

    def features(self, obs: Observation) -> Tensor:
        """Return the observation as raw features (N, O)."""
        return state_features(obs, self.contract)

    def fit_statistics(self, obs: Observation) -> None:
        """Fit the normaliser."""
        self.normaliser.fit(self.features(obs))

    def annotate(self, contract: Contract) -> Contract:
        """Return the contract with each field's statistics, once data were seen."""
        return self.normaliser.annotate(contract)

    def critic_features(self, obs: Observation) -> Tensor:
        """Return the normalised features (N, O)."""
        normalised: Tensor = self.normaliser(self.features(obs))
        return normalised
