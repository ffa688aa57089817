"""The toy contract that tests of algorithms, policies and exports share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from grpo_ros.contract import ActionField, Contract, ObservationField, Source


@pytest.fixture(scope="session")
def make_contract() -> Callable[..., Contract]:
    """Builds a contract with two fields (3 and 2 numbers), chunks of K and A action components."""

    def build(chunk_size: int = 4, action_size: int = 2) -> Contract:
        names = tuple(f"a{i}" for i in range(action_size))
        return Contract(
            task="toy",
            instruction="",
            embodiment="toy",
            robot_sha256="0",
            observation=(
                ObservationField("tip", (3,), Source("position")),
                ObservationField("gap", (2,), Source("position")),
            ),
            action=(ActionField("arm", "joint_delta", names, (0.1,) * action_size),),
            chunk_size=chunk_size,
            num_executed=chunk_size,
        )

    return build
