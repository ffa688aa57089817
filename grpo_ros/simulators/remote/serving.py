"""The bridge's side: a simulator that answers the requests of a learner."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from grpo_ros.contract import Contract
from grpo_ros.errors import BridgeError, GrpoRosError, SimulatorError
from grpo_ros.randomness import Key
from grpo_ros.simulators.base import Observation, Simulator
from grpo_ros.simulators.remote.channel import ServedChannel
from grpo_ros.simulators.remote.messages import (
    capabilities_fields,
    error_fields,
    field,
    plain_ids,
    put_result,
    put_scene,
    put_snapshot,
    put_tensors,
    take_scene,
    take_snapshot,
    tensor,
)
from grpo_ros.simulators.remote.wire import Message
from grpo_ros.tasks.scene_state import SceneState, concatenate

MakeSimulator = Callable[[int], Simulator]
"""Number of environments -> simulator."""
HELLO, OPEN, GOODBYE = "hello", "open", "goodbye"
"""Operations beside the simulator's; first and last are for channels without a connection."""
POLL_S = 0.2
"""How often a loop that waits for requests looks whether it should end."""

CHOICES = ("task", "simulator")
"""Settings that decide which others there are."""
SAME = "start both with the same settings and the same version of this package"

log = logging.getLogger(__name__)


class ServedSimulator:
    """Answers requests with a simulator, which it makes when a learner opens it.

    Args:
        make: makes the simulator.
        contract: of its task; a learner whose contract is another one is refused. None: known
            once the simulator is made, and told to the learner.
        settings: dotted key -> value of task and simulator; a learner that sends others is
            refused.
    """

    def __init__(
        self,
        make: MakeSimulator,
        contract: Contract | None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._make, self.contract, self._settings = make, contract, settings
        self._simulator: Simulator | None = None

    def answer(self, request: Message) -> Message:
        """Return the answer to a request: what it gave, or the error that it raised."""
        try:
            operation = str(field(request, "operation"))
            if operation in (HELLO, GOODBYE):
                return Message()
            if operation == OPEN:
                return self._open(request)
            if operation not in OPERATIONS:
                raise SimulatorError(f"operation '{operation}'", expected=" | ".join(OPERATIONS))
            if self._simulator is None:
                raise SimulatorError(f"'{operation}' before the simulator was opened")
            return OPERATIONS[operation](self._simulator, request)
        except GrpoRosError as problem:
            return Message(error_fields(problem))
        except Exception as problem:  # the learner has to be told, whatever it was
            log.exception("a request failed")
            return Message(error_fields(problem))

    def close(self) -> None:
        """Close the simulator, if there is one; idempotent."""
        if self._simulator is not None:
            self._simulator.close()
            self._simulator = None

    def _open(self, request: Message) -> Message:
        wanted, num_envs = field(request, "contract_hash"), int(field(request, "num_envs"))
        self._check_settings(request.fields.get("settings"))
        if self.contract is not None and wanted not in ("", self.contract.sha256):
            raise SimulatorError(
                f"the learner's contract of task '{field(request, 'task')}' is {wanted[:12]}",
                expected=f"that of the bridge, {self.contract.sha256[:12]} "
                f"of task '{self.contract.task}'",
                remedy=SAME,
            )
        if self._simulator is not None and self._simulator.num_envs != num_envs:
            self.close()
        if self._simulator is None:
            self._simulator = self._make(num_envs)
        self._simulator.watch = None
        self.contract = self._simulator.contract
        return Message(
            {
                "contract": self.contract.to_json(),
                "reward_names": list(self._simulator.task.reward_names),
                "contract_hash": self._simulator.contract.sha256,
                "capabilities": capabilities_fields(self._simulator.capabilities),
                "num_envs": self._simulator.num_envs,
                "device": str(self._simulator.device),
            }
        )

    def _check_settings(self, wanted: Any) -> None:
        """Raise SimulatorError where a learner's settings, if it sent any, are others."""
        if wanted is None or self._settings is None:
            return
        theirs, mine = dict(wanted), self._settings
        keys = [key for key in {**mine, **theirs} if theirs.get(key, ...) != mine.get(key, ...)]
        keys = [key for key in CHOICES if key in keys] or keys
        if keys:
            raise SimulatorError(
                f"the learner has {_listed(theirs, keys)}",
                expected=f"the bridge's {_listed(mine, keys)}",
                remedy=SAME,
            )


def _listed(settings: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(f"{key} = {settings.get(key, 'nothing')!r}" for key in keys)


def serve(
    channel: ServedChannel, served: ServedSimulator, is_stopping: Callable[[], bool]
) -> None:
    """Answer one learner's requests until it is gone or the bridge is to end."""
    while not is_stopping():
        try:
            request = channel.receive(POLL_S)
            if request is not None:
                channel.answer(served.answer(request))
        except BridgeError as end:
            log.debug("%s", end)
            return


def _reset(simulator: Simulator, request: Message) -> Message:
    keys = field(request, "keys")
    obs = simulator.reset(
        take_scene(request, "initial"),
        field(request, "env_ids"),
        None if keys is None else [Key(*map(int, key)) for key in keys],
    )
    return _observation(obs)


def _step(simulator: Simulator, request: Message) -> Message:
    scenes: list[SceneState] = []
    is_watched = bool(field(request, "watch"))
    simulator.watch = (lambda scene, _: scenes.append(scene())) if is_watched else None
    result = simulator.step(tensor(request, "chunk").to(simulator.device))
    answer = Message()
    put_result(answer, result)
    if scenes:
        put_scene(answer, "watched", concatenate(scenes))
    return answer


def _observe(simulator: Simulator, request: Message) -> Message:
    return _observation(simulator.observe())


def _scene(simulator: Simulator, request: Message) -> Message:
    answer = Message()
    put_scene(answer, "scene", simulator.scene())
    return answer


def _controller_state(simulator: Simulator, request: Message) -> Message:
    answer = Message()
    put_tensors(answer, "state", simulator.controller_state())
    return answer


def _snapshot(simulator: Simulator, request: Message) -> Message:
    answer = Message()
    put_snapshot(answer, simulator.snapshot(field(request, "env_ids")))
    return answer


def _restore(simulator: Simulator, request: Message) -> Message:
    rows, env_ids = field(request, "rows"), field(request, "env_ids")
    return _observation(simulator.restore(take_snapshot(request), rows, env_ids))


def _render(simulator: Simulator, request: Message) -> Message:
    images = simulator.render(plain_ids(field(request, "env_ids")), str(field(request, "camera")))
    return Message(tensors={"images": torch.as_tensor(images)})


def _observation(obs: Observation) -> Message:
    answer = Message()
    put_tensors(answer, "obs", obs)
    return answer


OPERATIONS: dict[str, Callable[[Simulator, Message], Message]] = {
    "reset": _reset,
    "step": _step,
    "observe": _observe,
    "scene": _scene,
    "controller_state": _controller_state,
    "snapshot": _snapshot,
    "restore": _restore,
    "render": _render,
}
