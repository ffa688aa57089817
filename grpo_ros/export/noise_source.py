"""NoiseSource: the noise of a deployed policy, which can be drawn again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grpo_ros.contract import Contract
from grpo_ros.errors import ContractError
from grpo_ros.randomness import Key, normal

STREAM = "deployment_noise"


class NoiseSource:
    """Standard normal noise for a policy whose graph has an input for it.

    A draw depends on the seed, the episode and the inference alone, never on what was drawn
    before. The contract's `noise_seeding` says how often there is a new one: `per_inference`, also
    where it is empty, or `per_episode`, which keeps a flow policy on one of its modes.

    Args:
        contract: of the policy.
        seed: of the deployment, from 0 on.

    Raises:
        ContractError: the policy takes no noise.
    """

    def __init__(self, contract: Contract, seed: int) -> None:
        if not contract.noise_shape:
            raise ContractError(
                f"the policy for '{contract.task}' takes no noise",
                expected="a contract with a noise shape",
                remedy="infer without noise",
            )
        self.shape, self.seed = contract.noise_shape, seed
        self._is_per_episode = contract.noise_seeding == "per_episode"

    def draw(self, episode: int, inference: int) -> npt.NDArray[np.float32]:
        """Return the noise (1, *noise_shape) float32 of one inference.

        Args:
            episode, inference: which, counted from 0; inferences within their episode.
        """
        key = Key(self.seed, episode, 0 if self._is_per_episode else inference)
        noise: npt.NDArray[np.float32] = normal(STREAM, [key], self.shape).numpy()
        return noise
