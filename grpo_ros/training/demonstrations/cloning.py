"""A policy fitted to demonstrations, as a run's settings say."""

from __future__ import annotations

from collections.abc import Callable

from grpo_ros.algorithms.behaviour_cloning import fit
from grpo_ros.distributed.ranks import Ranks
from grpo_ros.policies.chunk_policy import ChunkPolicy
from grpo_ros.randomness import Key, torch_generator
from grpo_ros.training.demonstrations.recording import Demonstrations
from grpo_ros.training.observer import Observers, Progress
from grpo_ros.training.settings import TrainConfig


def clone(
    policy: ChunkPolicy,
    data: Demonstrations,
    config: TrainConfig,
    observers: Observers,
    measure: Callable[[], float],
    ranks: Ranks,
) -> None:
    """Fit a policy to demonstrations, in place.

    Args:
        policy: the same on all ranks. data: what is cloned, whole on each.
        config: of the run.
        observers: told how far it is.
        measure: gives the policy's success on the way.
        ranks: that fit it together.
    """
    fit(
        policy,
        data.obs,
        data.chunk,
        data.weight,
        config.behaviour_cloning,
        torch_generator("behaviour_cloning", Key(config.seed)),
        progress=lambda done, total, loss: observers.on_progress(Progress("cloning", done, total)),
        measure=measure,
        ranks=ranks,
    )
