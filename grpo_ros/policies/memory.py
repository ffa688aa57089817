"""PolicyMemory: what a policy needs of memory while it is trained, by kind and per decision."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from grpo_ros.contract import Contract
from grpo_ros.policies.base import ActionSample, Observation
from grpo_ros.policies.chunk_policy import ChunkPolicy
from grpo_ros.policies.features import field_shape
from grpo_ros.policies.saved_tensors import SavedTensors

FLOAT_BYTES = 4


@dataclasses.dataclass(frozen=True)
class Weights:
    """Parameters of one kind: how many, their bytes, and the types that they are held in."""

    num: int
    num_bytes: int
    types: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class PolicyMemory:
    """Bytes that a policy needs. What is said to be estimated is; the rest is counted.

    Attributes:
        name: of the model, for people.
        parts: name of a part -> its parameters, without what is added to train it.
        frozen, trained: weights that stay as they are, and those that learn.
        gradients: bytes of all gradients; a weight that no loss reaches has none.
        casts: bytes of copies of trained weights in the precision that is computed in.
        num_features: F, of what a critic judges by.
        perceived: name -> bytes of what is perceived, per decision.
        sampled: bytes of chunk, likelihoods and latents, per decision.
        noise: bytes of noise, per decision.
        activations: bytes that autograd keeps, per row of a minibatch (estimated for GR00T), if it
            keeps all that it needs.
        checkpointed: the same if every block of layers is computed again for its gradient.
        recomputed: of these, bytes of the block that is being computed again.
        is_checkpointed: whether it is.
        acting: greatest temporary bytes while deciding, per environment (estimated).
        device: where the model is. Perceived, sampled and noise are on the CPU.
    """

    name: str
    parts: Mapping[str, int]
    frozen: Weights
    trained: Weights
    gradients: int
    casts: int
    num_features: int
    perceived: Mapping[str, int]
    sampled: int
    noise: int
    activations: int
    checkpointed: int
    acting: int
    device: str
    recomputed: int = 0
    is_checkpointed: bool = False

    @property
    def kept(self) -> int:
        """Bytes that autograd keeps, per row of a minibatch, with the settings as they are."""
        return self.checkpointed if self.is_checkpointed else self.activations


def weights_of(module: nn.Module, *, trained: bool) -> Weights:
    """Return the parameters of a module that learn, or those that do not, each once."""
    found = [p for p in module.parameters() if p.requires_grad is trained]
    types = {str(p.dtype).removeprefix("torch.") for p in found}
    return Weights(
        sum(p.numel() for p in found), sum(map(tensor_bytes, found)), tuple(sorted(types))
    )


def tensor_bytes(tensor: Tensor) -> int:
    """Return the bytes of a tensor's elements."""
    return tensor.numel() * tensor.element_size()


def sample_bytes(sample: ActionSample) -> int:
    """Return the bytes of a sample's tensors."""
    return sum(map(tensor_bytes, (sample.chunk, sample.log_prob, *sample.latents.values())))


def observation_bytes(contract: Contract) -> dict[str, int]:
    """Return the bytes of each observed field, of one environment."""
    return {
        field.name: int(torch.Size(field_shape(field)).numel())
        * (1 if field.dtype == "uint8" else FLOAT_BYTES)
        for field in contract.observation
    }


def small_policy_memory(policy: ChunkPolicy, name: str) -> PolicyMemory:
    """Return the memory of a policy that is small enough to try: all of it is counted.

    It decides once and twice on zeros. Autograd keeps as much per row as it keeps more for two
    rows than for one.
    """
    trained = weights_of(policy, trained=True)
    seen, sample = _decided(policy, 1)
    kept = _kept_bytes(policy, 2) - _kept_bytes(policy, 1)
    return PolicyMemory(
        name=name,
        parts={part: sum(p.numel() for p in m.parameters()) for part, m in _networks(policy)},
        frozen=weights_of(policy, trained=False),
        trained=trained,
        gradients=trained.num_bytes,
        casts=0,
        num_features=policy.num_features,
        perceived={field: tensor_bytes(value) for field, value in seen.items()},
        sampled=sample_bytes(sample),
        noise=int(torch.Size(policy.noise_shape).numel()) * FLOAT_BYTES,
        activations=kept,
        checkpointed=kept,
        acting=0,
        device="cpu",
    )


def _networks(policy: ChunkPolicy) -> list[tuple[str, nn.Module]]:
    return [(n, m) for n, m in policy.named_children() if any(True for _ in m.parameters())]


@torch.no_grad()
def _decided(policy: ChunkPolicy, num: int) -> tuple[Observation, ActionSample]:
    """Return what a policy perceives of zeros, and what it decides; N rows."""
    obs = {
        field.name: torch.zeros(num, *field_shape(field)) for field in policy.contract.observation
    }
    seen = policy.perceive(obs)
    return seen, policy.act(seen, torch.zeros(num, *policy.noise_shape))


def _kept_bytes(policy: ChunkPolicy, num: int) -> int:
    seen, sample = _decided(policy, num)
    with SavedTensors(policy.parameters()) as saved:
        policy.log_prob(seen, sample)
    return saved.peak
