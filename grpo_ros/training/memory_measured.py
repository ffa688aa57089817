"""The memory of one real iteration, measured: the same items that `training.memory` estimates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from grpo_ros import configuration
from grpo_ros.algorithms import make_algorithm
from grpo_ros.algorithms.grpo import Grpo
from grpo_ros.algorithms.hybrid import Hybrid
from grpo_ros.algorithms.ppo import Ppo
from grpo_ros.policies import make_policy
from grpo_ros.policies.chunk_policy import ChunkPolicy
from grpo_ros.policies.memory import sample_bytes, tensor_bytes, weights_of
from grpo_ros.policies.saved_tensors import SavedTensors
from grpo_ros.randomness import Key
from grpo_ros.tasks.registry import make_task
from grpo_ros.training import memory
from grpo_ros.training.averaging import PolicyAverage
from grpo_ros.training.collector import GroupCollector
from grpo_ros.training.placement import place_simulator
from grpo_ros.training.rollout import Rollout
from grpo_ros.training.settings import TrainConfig

PEAK = "greatest that CUDA had allocated"


class _WatchedCollector(GroupCollector):
    """Keeps how many bytes of noise were drawn."""

    noise_bytes = 0

    def _noise(self, *args: Any) -> Tensor:
        noise = super()._noise(*args)
        self.noise_bytes = tensor_bytes(noise)
        return noise


def measure_memory(config: TrainConfig) -> dict[str, int]:
    """Collect one rollout, update once, and return the bytes of each item that was there.

    Tensors are counted by walking policy, optimiser, average, reference, critic and rollout, so it
    works on any device. ACTIVATIONS is the most that autograd kept at a time, with what autocast
    copied; of blocks that are computed again for their gradients, only what goes in is in it.
    Where the policy is on a GPU, PEAK is torch.cuda.max_memory_allocated over rollout and update.
    The update is one pass over the rollout, in which every minibatch takes a step.

    Raises:
        ConfigurationError, CheckpointError, ContractError, SimulatorError, MissingExtraError: as
            training does.
    """
    config = _one_update(config)
    task = make_task(config.task, configuration.section(config, "task"))
    collection = config.collection
    num_envs = collection.num_groups * collection.group_size
    simulator = place_simulator(config, task, num_envs, None, lambda _: None)
    try:
        policy = make_policy(configuration.section(config, "policy"), simulator.contract)
        average = PolicyAverage(policy, collection.averaging)
        algorithm = _algorithm(config, policy)
        collector = _WatchedCollector(
            simulator, collection.num_groups, collection.group_size, collection.antithetic
        )
        on_gpu = [p.device for p in policy.parameters() if p.is_cuda][:1]
        for device in on_gpu:
            torch.cuda.reset_peak_memory_stats(device)
        size = algorithm.rollouts_per_state(collection.group_size)
        rollout = collector.collect(policy, config.seed, 0, size)
        with SavedTensors(_weights(policy, algorithm)) as saved:
            algorithm.update(rollout, Key(config.seed, 0))
    finally:
        simulator.close()
    measured = {
        **_learned(policy, average, algorithm),
        **_rollout(rollout),
        memory.ACTIVATIONS: saved.peak,
        memory.NOISE: collector.noise_bytes,
    }
    for device in on_gpu:
        measured[PEAK] = torch.cuda.max_memory_allocated(device)
    return measured


def _one_update(config: TrainConfig) -> TrainConfig:
    """Return the settings with which an untrained policy takes every step of one pass."""
    changes: dict[str, Any] = {"num_epochs": 1, "kl_target": 0.0, "ratio_tolerance": math.inf}
    return dataclasses.replace(
        config,
        grpo=dataclasses.replace(config.grpo, dynamic_sampling=False, **changes),
        ppo=dataclasses.replace(config.ppo, **changes),
    )


def _algorithm(config: TrainConfig, policy: ChunkPolicy) -> Grpo | Ppo | Hybrid:
    algorithm = make_algorithm(configuration.algorithm_settings(config), policy)
    assert isinstance(algorithm, Grpo | Ppo | Hybrid)
    return algorithm


def _weights(policy: ChunkPolicy, algorithm: Grpo | Ppo | Hybrid) -> list[Tensor]:
    """Return the weights of policy, reference and critic, which autograd need not keep."""
    reference = algorithm.gradient.reference
    copies = [p for _, p in reference.named_parameters()] if reference is not None else []
    critic = () if isinstance(algorithm, Grpo) else algorithm.critic.parameters()
    return [*policy.parameters(), *copies, *critic]


def _learned(
    policy: ChunkPolicy, average: PolicyAverage, algorithm: Grpo | Ppo | Hybrid
) -> dict[str, int]:
    own = list(policy.parameters())
    optimizer, reference = algorithm.gradient.optimizer, algorithm.gradient.reference
    measured = {
        memory.FROZEN: weights_of(policy, trained=False).num_bytes,
        memory.TRAINED: weights_of(policy, trained=True).num_bytes,
        memory.GRADIENTS: _gradient_bytes(own),
        memory.MOMENTS: _moment_bytes(optimizer),
        memory.AVERAGE: _bytes_beside(average.policy.named_parameters(), own),
    }
    if reference is not None:
        measured[memory.REFERENCE] = _bytes_beside(reference.named_parameters(), own)
    if not isinstance(algorithm, Grpo):
        critic = list(algorithm.critic.parameters())
        measured[memory.CRITIC] = sum(map(tensor_bytes, critic))
        measured[memory.CRITIC_GRADIENTS] = _gradient_bytes(critic)
        measured[memory.CRITIC_MOMENTS] = _moment_bytes(algorithm.estimator.value.optimizer)
    return measured


def _rollout(rollout: Rollout) -> dict[str, int]:
    outcomes = [rollout.executed, rollout.reward_terms, *rollout.final_obs.values()]
    return {
        memory.PERCEIVED: sum(map(tensor_bytes, rollout.obs.values())),
        memory.SAMPLED: sample_bytes(rollout.sample),
        memory.OUTCOMES: sum(map(tensor_bytes, outcomes)),
    }


def _gradient_bytes(parameters: Iterable[nn.Parameter]) -> int:
    return sum(tensor_bytes(p.grad) for p in parameters if p.grad is not None)


def _moment_bytes(optimizer: torch.optim.Optimizer) -> int:
    return sum(
        tensor_bytes(state[name])
        for state in optimizer.state.values()
        for name in ("exp_avg", "exp_avg_sq")
    )


def _bytes_beside(
    named: Iterable[tuple[str, nn.Parameter]], others: Iterable[nn.Parameter]
) -> int:
    """Return the bytes of the parameters that are none of `others`."""
    shared = {id(other) for other in others}
    return sum(tensor_bytes(p) for _, p in named if id(p) not in shared)
