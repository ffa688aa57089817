"""The choke point before the optimiser: the old policy's likelihoods must be reproducible."""

from __future__ import annotations

import torch
from torch import Tensor

from grpo_ros.distributed.ranks import ONE_RANK, Ranks
from grpo_ros.errors import TrainingError
from grpo_ros.policies.base import Policy


def check_first_ratio(
    policy: Policy, log_ratios: Tensor, tolerance: float, ranks: Ranks = ONE_RANK
) -> float:
    """Return the largest |ratio - 1| of all ranks before the first step of an update.

    Args:
        policy: the one that sampled, with the parameters that it sampled with.
        log_ratios: (B, K), per step, 0 where not executed.
        tolerance: largest |ratio - 1| that rounding explains, unless the policy's
            `ratio_rounding` is more.
        ranks: whose ratios count.

    Raises:
        TrainingError: the ratio is not 1, or not finite; says which causes are likely.
    """
    tolerance = max(tolerance, policy.ratio_rounding)
    found = torch.expm1(log_ratios.detach()).abs()
    error = float(ranks.maximum(found.max() if found.numel() else found.new_zeros(())))
    if error <= tolerance:
        return error
    bad = [name for name, p in policy.named_parameters() if not torch.isfinite(p).all()]
    if bad:
        raise TrainingError(
            f"policy parameters {bad} are not finite",
            remedy="resume from the last checkpoint, with a lower learning rate",
        )
    raise TrainingError(
        f"likelihood ratio before the first step is off by {error:.3g}",
        expected=f"1 within {tolerance:g}, as nothing was learned yet",
        remedy="; ".join(_likely_causes(policy, error)),
    )


def _likely_causes(policy: Policy, error: float) -> list[str]:
    causes = []
    if getattr(policy, "training", False):
        causes.append("the policy is in training mode, so dropout may be on: call eval()")
    if error < 1e-2:
        causes.append("the policy computed in a lower precision, or on another device")
    causes += [
        "the policy or its normaliser changed between collection and update",
        "observations or samples were altered or reordered after the policy had seen them",
        "the sample's latents (denoising step, state before it) are not those that were drawn",
    ]
    return causes
