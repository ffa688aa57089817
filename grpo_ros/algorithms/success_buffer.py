"""SuccessBuffer: groups with successes stand in for groups that all fail.

A group that fails as a whole says nothing. One that had both outcomes some updates ago still does:
its actions' likelihoods are known from when they were sampled, so the clipped ratio weighs how
much the present policy would still act so (as replay for GRPO does: RePO, 2506.09340; off-policy
GRPO, 2505.22257). It costs no environment steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from grpo_ros.algorithms.group_estimator import agree, objectives_of
from grpo_ros.errors import CheckpointError
from grpo_ros.training.rollout import Rollout


class SuccessBuffer:
    """The newest groups that had both outcomes.

    Args:
        size: how many are kept at most.
        maximum_age: updates after which one is dropped.
    """

    def __init__(self, size: int, maximum_age: int) -> None:
        self.size, self.maximum_age = size, maximum_age
        self._groups: list[tuple[int, dict[str, Tensor]]] = []
        """Update in which a group was collected, and its tensors; the newest first."""

        self.staleness = 0.0
        """Mean age, in updates, of the episodes that `fill` last returned."""

    def __len__(self) -> int:
        return len(self._groups)

    def fill(
        self, rollout: Rollout, objectives: tuple[str, ...], update: int
    ) -> tuple[Rollout, Tensor]:
        """Put kept groups in place of those that all fail, then keep the new ones.

        Args:
            rollout: of the present policy.
            objectives: what is compared; a group is replaced only if nothing in it differs.
            update: number of this update; later ones are greater.

        Returns:
            the rollout to learn from, and which of its episodes are of the present policy (N,).
        """
        values, valid = objectives_of(rollout, objectives)
        outcome = rollout.outcome.view(valid.shape) >= 0.5
        same = agree(values, valid)
        failed = torch.nonzero(same & ~outcome.any(dim=1)).flatten().tolist()
        mixed = torch.nonzero(~same & outcome.any(dim=1) & valid.all(dim=1)).flatten().tolist()
        self._groups = [(at, g) for at, g in self._groups if update - at <= self.maximum_age]
        replaced = dict(zip(failed, self._groups, strict=False))
        self.staleness = sum(update - at for at, _ in replaced.values()) / rollout.num_groups
        filled, fresh = self._replaced(rollout, {i: group for i, (_, group) in replaced.items()})
        found = [_copy(rollout.with_groups([i]).tensors()) for i in mixed]
        new = [(update, group) for group in found if _is_finite(group)]
        self._groups = [*new, *self._groups][: self.size]
        return filled, fresh

    def _replaced(
        self, rollout: Rollout, groups: Mapping[int, dict[str, Tensor]]
    ) -> tuple[Rollout, Tensor]:
        """Return the rollout with some of its groups exchanged, and which episodes are its own."""
        fresh = torch.ones(len(rollout.outcome), dtype=torch.bool)
        if not groups:
            return rollout, fresh
        kept = {index: rollout.with_tensors(group) for index, group in groups.items()}
        longest = max(each.executed.shape[1] for each in (rollout, *kept.values()))
        rollout = rollout.lengthened(longest)
        tensors = _copy(rollout.tensors())
        for index, group in kept.items():
            rows = slice(index * rollout.group_size, (index + 1) * rollout.group_size)
            fresh[rows] = False
            for name, value in group.lengthened(longest).tensors().items():
                tensors[name][rows] = value
        return rollout.with_tensors(tensors), fresh

    def state_dict(self) -> dict[str, Tensor]:
        """Return the kept groups as flat tensors."""
        state = {}
        for index, (update, group) in enumerate(self._groups):
            state[f"{index}/update"] = torch.tensor(update)
            state.update({f"{index}/{name}": value for name, value in group.items()})
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict`.

        Raises:
            CheckpointError: a tensor is missing, or there are more groups than are kept.
        """
        found: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            index, _, name = key.partition("/")
            found.setdefault(int(index), {})[name] = value
        if len(found) > self.size or any("update" not in group for group in found.values()):
            raise CheckpointError(
                f"the checkpoint's success buffer has {len(found)} groups",
                expected=f"at most {self.size}, each with its update",
                remedy="resume with the configuration that the checkpoint was made with",
            )
        self._groups = [(int(group.pop("update")), group) for _, group in sorted(found.items())]


def _is_finite(tensors: Mapping[str, Tensor]) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in tensors.values())


def _copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in tensors.items()}
