"""What a training run needs of memory, item by item, before it is started.

    grpo-ros memory --policy gr00t --method all

`memory_measured` has the same items of a run that is really made, `memory_table` prints both.
Weights, gradients, moments and the rollout's tensors are counted; what autograd keeps is estimated
for a GR00T. Not in it: simulator and renderer, the packages themselves, what an operation takes
for itself, and what the allocator rounds up.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch

from grpo_ros import configuration
from grpo_ros.algorithms.hybrid import HybridSettings
from grpo_ros.algorithms.policy_gradient import PolicyGradientConfig
from grpo_ros.algorithms.ppo import PpoConfig
from grpo_ros.policies import make_policy
from grpo_ros.policies.critic import Critic
from grpo_ros.policies.gr00t.config import Gr00tConfig
from grpo_ros.policies.memory import (
    FLOAT_BYTES,
    PolicyMemory,
    observation_bytes,
    small_policy_memory,
)
from grpo_ros.tasks.registry import make_task
from grpo_ros.training.settings import TrainConfig

Phase = Literal["always", "collecting", "updating"]

FROZEN, TRAINED = "weights, frozen", "weights, trained"
GRADIENTS, MOMENTS = "gradients", "Adam's two moments"
AVERAGE, REFERENCE = "average of the iterates", "reference policy"
CASTS, ACTIVATIONS = "trained weights in bfloat16", "activations of a minibatch"
ACTING = "temporaries of deciding"
PERCEIVED, SAMPLED = "rollout: perceived", "rollout: chunks and latents"
OUTCOMES, NOISE = "rollout: rewards, last sight", "rollout: noise"
STACKING, MINIBATCH = "rollout: steps being stacked", "rows of a minibatch"
CRITIC = "critic: weights"
CRITIC_GRADIENTS, CRITIC_MOMENTS = "critic: gradients", "critic: Adam's two moments"
CRITIC_INPUT = "critic: features and activations"
HOST = "cpu"


@dataclasses.dataclass(frozen=True)
class Item:
    """Bytes for one purpose.

    Attributes:
        name: of the purpose. num_bytes: how many.
        device: where they are.
        phase: when; what is only there while collecting is gone when updating.
        is_estimate: from layer sizes rather than counted.
        detail: numbers and types, for people.
    """

    name: str
    num_bytes: int
    device: str
    phase: Phase = "always"
    is_estimate: bool = False
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class MemoryEstimate:
    """What one way of training needs.

    Attributes:
        algorithm, method: grpo or ppo; lora, head or full, empty for other policies.
        policy: what the policy alone needs.
        rows: decisions in a rollout. minibatch: rows in a minibatch.
        setting: how many rollouts and decisions, for people.
        items: all of them.
    """

    algorithm: str
    method: str
    policy: PolicyMemory
    rows: int
    minibatch: int
    setting: str
    items: tuple[Item, ...]

    def bytes_of(self, name: str) -> int:
        """Return the bytes of an item; 0 where it has no part."""
        return sum(item.num_bytes for item in self.items if item.name == name)

    def total(self, device: str = "", *, with_critic: bool = True) -> int:
        """Return the greatest sum at a time, of one device or (empty) of all."""
        kept = [
            item
            for item in self.items
            if (not device or item.device == device)
            and (with_critic or not item.name.startswith("critic"))
        ]
        phase = dict.fromkeys(("always", "collecting", "updating"), 0)
        for item in kept:
            phase[item.phase] += item.num_bytes
        return phase["always"] + max(phase["collecting"], phase["updating"])

    @property
    def other_activations(self) -> int:
        """What ACTIVATIONS would be with gr00t.checkpointing the other way."""
        policy = self.policy
        other = policy.activations if policy.is_checkpointed else policy.checkpointed
        return round(self.bytes_of(ACTIVATIONS) * other / policy.kept) if policy.kept else 0

    @property
    def critic_share(self) -> float:
        """What the critic adds to the total without it, as a fraction."""
        without = self.total(with_critic=False)
        return (self.total() - without) / without


def estimate_memory(config: TrainConfig) -> MemoryEstimate:
    """Return what a run needs; nothing is loaded.

    Raises:
        ConfigurationError, CheckpointError, ContractError, MissingExtraError: as making the
            policy does.
    """
    task = make_task(config.task, configuration.section(config, "task"))
    contract, method = task.contract(), ""
    policy_config = configuration.section(config, "policy")
    if isinstance(policy_config, Gr00tConfig):
        from grpo_ros.policies.gr00t.memory import gr00t_memory

        policy, method = gr00t_memory(policy_config, contract), str(policy_config.trained)
    else:
        policy = small_policy_memory(make_policy(policy_config, contract), config.policy)
    collection = config.collection
    num_envs = collection.num_groups * collection.group_size
    num_decisions = math.ceil(task.horizon / contract.chunk_size)
    rows = num_envs * num_decisions
    algorithm, critic = _settings(config)
    # As `minibatches` deals them out: equal parts of about the wanted size.
    minibatch = math.ceil(rows / max(1, round(rows / algorithm.minibatch_size)))
    per_decision = contract.chunk_size * (1 + FLOAT_BYTES * len(task.reward_names))
    ends = num_envs * sum(observation_bytes(contract).values())
    items = [
        *_learned(policy, is_referred=algorithm.reference_kl_coefficient > 0.0),
        *_passes(
            policy, num_envs, minibatch, is_referred=algorithm.reference_kl_coefficient > 0.0
        ),
        *_rollout(policy, rows, minibatch, rows * per_decision + ends),
    ]
    if critic is not None:
        items += _critic(critic, critic.critic_size(policy.num_features), rows)
    setting = f"{num_envs} x {num_decisions}"
    return MemoryEstimate(config.algorithm, method, policy, rows, minibatch, setting, tuple(items))


def _settings(config: TrainConfig) -> tuple[PolicyGradientConfig, PpoConfig | None]:
    """Return the settings of the update, and of the critic if there is one."""
    settings = configuration.algorithm_settings(config)
    if isinstance(settings, HybridSettings):
        return settings.grpo, settings.ppo
    return settings, settings if isinstance(settings, PpoConfig) else None


def _learned(policy: PolicyMemory, *, is_referred: bool) -> list[Item]:
    """Return weights, and what learning keeps for each of them.

    Copies (the average, the reference) share what is not trained. Adam's moments have the type
    of the weight, and only weights with a gradient have any.
    """
    frozen, trained, where = policy.frozen, policy.trained, policy.device
    items = [
        Item(FROZEN, frozen.num_bytes, where, detail=", ".join(frozen.types)),
        Item(TRAINED, trained.num_bytes, where, detail=", ".join(trained.types)),
        Item(GRADIENTS, policy.gradients, where),
        Item(MOMENTS, 2 * policy.gradients, where),
        Item(AVERAGE, trained.num_bytes, where),
    ]
    if is_referred:
        items.append(Item(REFERENCE, trained.num_bytes, where))
    return items


def _passes(
    policy: PolicyMemory, num_envs: int, minibatch: int, *, is_referred: bool
) -> list[Item]:
    """Return what forward passes need: B rows with gradients, N rows without.

    Where there is a reference, the loss evaluates the policy twice, and keeps both passes.
    """
    is_estimate = policy.acting > 0
    passes = 2 if is_referred else 1
    kept = passes * minibatch * policy.kept
    acting = num_envs * policy.acting
    where = policy.device
    return [
        Item(CASTS, policy.casts, where, "updating", is_estimate=True),
        Item(ACTIVATIONS, kept, where, "updating", is_estimate=is_estimate),
        Item(ACTING, acting, where, "collecting", is_estimate=True),
    ]


def _rollout(policy: PolicyMemory, rows: int, minibatch: int, outcomes: int) -> list[Item]:
    """Return the rollout's tensors, which are on the CPU.

    While it is collected there is a list of steps, and at its end the same again stacked; the
    noise of all decisions is drawn before. A minibatch is a copy of its rows.
    """
    perceived = sum(policy.perceived.values())
    per_row = perceived + policy.sampled
    names = ", ".join(policy.perceived)
    return [
        Item(PERCEIVED, rows * perceived, HOST, detail=names),
        Item(SAMPLED, rows * policy.sampled, HOST),
        Item(OUTCOMES, outcomes, HOST),
        Item(NOISE, rows * policy.noise, HOST, "collecting"),
        Item(STACKING, rows * per_row, HOST, "collecting"),
        Item(MINIBATCH, minibatch * per_row, HOST, "updating"),
    ]


def _critic(config: PpoConfig, num_features: int, rows: int) -> list[Item]:
    """Return what PPO's critic needs, which is on the CPU.

    Its weights are made, on torch's meta device. It is given the features of all rows, in a copy
    of those that count as well, and keeps of a minibatch its input and, of each hidden layer, what
    goes into the activation and what comes out.
    """
    critic = config.critic
    with torch.device("meta"):
        made = Critic(num_features, critic.hidden, torch.Generator("cpu"), critic.activation)
    weights = sum(p.numel() * p.element_size() for p in made.parameters())
    per_row = FLOAT_BYTES * (num_features + 2 * sum(critic.hidden))
    features = 2 * rows * FLOAT_BYTES * num_features
    passed = features + min(rows, critic.minibatch_size) * per_row
    return [
        Item(CRITIC, weights, HOST, detail="float32"),
        Item(CRITIC_GRADIENTS, weights, HOST),
        Item(CRITIC_MOMENTS, 2 * weights, HOST),
        Item(CRITIC_INPUT, passed, HOST, "updating"),
    ]
