"""ChainedSession: the graphs of backbone and head, one after the other, as one session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grpo_ros.errors import PolicyFileError
from grpo_ros.export.inference_session import CPU
from grpo_ros.export.metadata import FEATURES


class ChainedSession:
    """What `PolicyFile` asks of an ONNX Runtime session, for two of them.

    Args:
        path: of the policy, for errors.
        backbone: its one output is `features`.
        head: takes `features`, and what else is observed.

    Raises:
        PolicyFileError: the two do not fit together.
    """

    def __init__(self, path: Path, backbone: Any, head: Any) -> None:
        self._backbone, self._head = backbone, head
        given = {value.name: _kind(value) for value in backbone.get_outputs()}
        taken = {value.name: _kind(value) for value in head.get_inputs()}
        own = {value.name for value in backbone.get_inputs()}
        if given != {FEATURES: taken.get(FEATURES)} or own & taken.keys():
            raise PolicyFileError(
                f"{path}: the backbone gives {given} of {sorted(own)}, the head takes {taken}",
                expected=f"'{FEATURES}' of one shape, and every other input in one of them",
                remedy="export the policy again",
            )

    def get_providers(self) -> list[str]:
        """Return the providers of the head, or of the backbone if that alone is on the CPU."""
        providers: list[str] = self._backbone.get_providers()
        if providers[0] != CPU:
            providers = self._head.get_providers()
        return providers

    def get_inputs(self) -> list[Any]:
        """Return what is observed, the backbone's first."""
        inputs = [*self._backbone.get_inputs(), *self._head.get_inputs()]
        return [value for value in inputs if value.name != FEATURES]

    def get_outputs(self) -> list[Any]:
        """Return the head's outputs."""
        outputs: list[Any] = self._head.get_outputs()
        return outputs

    def run(
        self, names: Sequence[str], feed: Mapping[str, npt.NDArray[Any]]
    ) -> list[npt.NDArray[np.float32]]:
        """Return the named outputs of the head, on the features that the backbone gives."""
        seen = {value.name: feed[value.name] for value in self._backbone.get_inputs()}
        features = self._backbone.run([FEATURES], seen)[0]
        rest = {name: value for name, value in feed.items() if name not in seen}
        outputs: list[npt.NDArray[np.float32]] = self._head.run(
            names, {**rest, FEATURES: features}
        )
        return outputs


def _kind(value: Any) -> tuple[tuple[Any, ...], str]:
    return tuple(value.shape[1:]), value.type
