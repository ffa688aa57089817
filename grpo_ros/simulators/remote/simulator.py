"""RemoteSimulator: a simulator that another process owns, behind the same protocol.

Every call is one request and its answer (`channel.py`), with a deadline. What comes back is what
the simulator gave, bit for bit, in tensors of the caller's own on the CPU. A bridge that died,
stalled or was restarted raises `BridgeError` and leaves the simulator lost: its environments are
gone, so every further call is refused until `reconnect`, after which episodes begin with `reset`
or `restore` as usual. Snapshots are data and outlive the bridge that they came from.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from grpo_ros.contract import Contract
from grpo_ros.errors import BridgeError, SimulatorError
from grpo_ros.randomness import Key
from grpo_ros.simulators.base import Capabilities, EnvIds, Observation, StepResult, Watch
from grpo_ros.simulators.remote.channel import Channel, Connector
from grpo_ros.simulators.remote.messages import (
    field,
    plain_ids,
    put_scene,
    put_snapshot,
    raise_error,
    take_capabilities,
    take_result,
    take_scene,
    take_snapshot,
    take_tensors,
    tensor,
)
from grpo_ros.simulators.remote.serving import OPEN
from grpo_ros.simulators.remote.wire import Message
from grpo_ros.simulators.snapshot import Snapshot
from grpo_ros.tasks.base import Task
from grpo_ros.tasks.environment import EnvironmentTask
from grpo_ros.tasks.scene_state import SceneState


class RemoteSimulator:
    """N environments of one task in another process; see `simulators.base.Simulator`.

    Args:
        task: what is simulated; its contract has to be the bridge's.
        num_envs: N.
        connector: finds or starts the bridge; closed with the simulator.
        timeout_s: deadline of every call.
        start_timeout_s: deadline until a bridge is there and has made its simulator.
        settings: dotted key -> value of task and simulator, which have to be the bridge's too;
            None: whatever it was started with.

    Attributes:
        watch: as in the protocol; called once a whole chunk is done, in the caller's thread.
        bridge_device: where the bridge's simulator has its tensors; those here are on the CPU.

    Raises:
        BridgeError: no bridge within the deadline, or one of another version.
        SimulatorError: the bridge's contract or settings are others; whatever its simulator
            raises.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        task: Task,
        num_envs: int,
        connector: Connector,
        timeout_s: float = 60.0,
        start_timeout_s: float = 120.0,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.task, self.num_envs, self._settings = task, num_envs, settings
        # Only who builds an environment knows its contract.
        is_known = not isinstance(task, EnvironmentTask) or task.is_bound
        self._known = task.contract() if is_known else None
        self.watch: Watch | None = None
        self._connector = connector
        self._timeout_s, self._start_timeout_s = timeout_s, start_timeout_s
        self._channel: Channel | None = None
        self._lost = "the simulator was never connected"
        try:
            self.capabilities, self.bridge_device = self._connect()
            self.contract = task.contract()
        except BaseException:
            self.close()
            raise

    # ---------------------------------------------------------------- connection

    def reconnect(self) -> None:
        """Connect to a bridge again, a new one if need be; all environments are as never reset.

        Raises:
            BridgeError: no bridge within the deadline.
            SimulatorError: it simulates something else than the one before.
        """
        self._lose("the connection is being made anew")
        found = self._connect()
        if found != (self.capabilities, self.bridge_device):
            self._lose("another kind of bridge came back")
            raise SimulatorError(
                f"the bridge came back with {found}",
                expected=f"{(self.capabilities, self.bridge_device)}",
            )

    def close(self) -> None:
        """Hang up, and end a bridge that was started for this simulator; idempotent."""
        self._lose("the simulator is closed")
        self._connector.close()

    def _connect(self) -> tuple[Capabilities, str]:
        """Connect and open; return the bridge's capabilities and its device."""
        self._channel = self._connector.connect(self._start_timeout_s)
        request = _request(
            OPEN, task=self.task.name, num_envs=self.num_envs, settings=self._settings
        )
        request.fields["contract_hash"] = self._known.sha256 if self._known else ""
        answer = self._ask(request, self._start_timeout_s)
        if self._known is None:
            self._bind(answer)
        mine = {"contract_hash": self.task.contract().sha256, "num_envs": self.num_envs}
        for name, value in mine.items():
            if field(answer, name) != value:
                what = f"the bridge simulates {name} {field(answer, name)}"
                raise SimulatorError(what, expected=f"{value}")
        capabilities = take_capabilities(field(answer, "capabilities"))
        return capabilities, str(field(answer, "device"))

    def _bind(self, answer: Message) -> None:
        """Take the contract of an environment that the bridge has built."""
        assert isinstance(self.task, EnvironmentTask)
        self._known = Contract.from_json(str(field(answer, "contract")))
        self.task.bind(self._known, tuple(map(str, field(answer, "reward_names"))))

    def _ask(self, request: Message, timeout_s: float | None = None) -> Message:
        """Return the answer to a request.

        Raises:
            BridgeError: the bridge is lost, now or since an earlier call; names the operation.
            GrpoRosError: what the simulator raised.
        """
        operation = request.fields["operation"]
        if self._channel is None:
            raise BridgeError(f"'{operation}' without a bridge: {self._lost}")
        try:
            answer = self._channel.request(request, timeout_s or self._timeout_s)
        except BridgeError as problem:
            self._lose(problem.what)
            raise BridgeError(
                f"'{operation}': {problem.what}", expected=problem.expected, remedy=problem.remedy
            ) from problem
        except BaseException:  # an interrupt, too, leaves an answer behind that nobody awaits
            self._lose(f"'{operation}' was interrupted")
            raise
        raise_error(answer.fields)
        return answer

    def _lose(self, why: str) -> None:
        self._lost = why
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    # ---------------------------------------------------------------- protocol

    def reset(
        self, initial: SceneState, env_ids: EnvIds = None, keys: Sequence[Key] | None = None
    ) -> Observation:
        """Start episodes from `initial`; see the protocol."""
        plain_keys = None if keys is None else [list(key) for key in keys]
        request = _request("reset", env_ids=plain_ids(env_ids), keys=plain_keys)
        put_scene(request, "initial", initial)
        return take_tensors(self._ask(request), "obs")

    def step(self, chunk: Tensor) -> StepResult:
        """Carry out a chunk (N, K, A) of actions; see the protocol."""
        answer = self._ask(_request("step", {"chunk": chunk}, watch=self.watch is not None))
        if self.watch is not None and "watched" in answer.fields:
            scenes = take_scene(answer, "watched")
            for row in range(scenes.num_envs):
                self.watch(functools.partial(scenes.rows, [row]), self.contract.period_s)
        return take_result(answer)

    def observe(self) -> Observation:
        """Return the current observation of all environments."""
        return take_tensors(self._ask(_request("observe")), "obs")

    def scene(self) -> SceneState:
        """Return the current scene of all environments."""
        return take_scene(self._ask(_request("scene")), "scene")

    def controller_state(self) -> Mapping[str, Tensor]:
        """Return the controllers' state of all environments."""
        return take_tensors(self._ask(_request("controller_state")), "state")

    def snapshot(self, env_ids: EnvIds = None) -> Snapshot:
        """Return the complete state of the given environments."""
        return take_snapshot(self._ask(_request("snapshot", env_ids=plain_ids(env_ids))))

    def restore(
        self, snapshot: Snapshot, rows: Sequence[int] | Tensor, env_ids: EnvIds = None
    ) -> Observation:
        """Put snapshot rows into environments; see the protocol."""
        request = _request("restore", rows=plain_ids(rows), env_ids=plain_ids(env_ids))
        put_snapshot(request, snapshot)
        return take_tensors(self._ask(request), "obs")

    def render(self, env_ids: EnvIds = None, camera: str = "overview") -> Tensor:
        """Return images (n, H, W, 3) uint8 of the given environments."""
        request = _request("render", env_ids=plain_ids(env_ids), camera=camera)
        return tensor(self._ask(request), "images")


def _request(
    operation: str, tensors: Mapping[str, Tensor] | None = None, **fields: Any
) -> Message:
    return Message({"operation": operation, **fields}, dict(tensors or {}))
