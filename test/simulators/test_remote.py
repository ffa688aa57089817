"""A simulator in another process: the same bits, and a named error whatever becomes of it."""

import dataclasses
import os
import shutil
import signal
import time

import pytest
import torch
from bridge_helpers import (
    DEADLINE_S,
    FORKS,
    KILL,
    ONE_THREAD,
    RAISE,
    STOP,
    ForkedBridge,
    is_running,
    shared_memory,
    until,
)

from grpo_ros import configuration
from grpo_ros.configuration import load_config, to_yaml
from grpo_ros.errors import BridgeError, ConfigurationError, SimulatorError
from grpo_ros.robots.robot import ROBOTS_DIRECTORY
from grpo_ros.serve import served_simulator
from grpo_ros.simulators import conformance
from grpo_ros.simulators.mujoco.simulator import MujocoConfig, MujocoSimulator
from grpo_ros.simulators.remote.bridge_process import BridgeProcess
from grpo_ros.simulators.remote.simulator import RemoteSimulator
from grpo_ros.simulators.remote.wire import Message, to_bytes, unpack
from grpo_ros.simulators.snapshot import Snapshot
from grpo_ros.tasks.base import Randomisation
from grpo_ros.tasks.navigate import Navigate, NavigateConfig
from grpo_ros.tasks.pick_place import PickPlace, PickPlaceConfig
from grpo_ros.tasks.registry import make_task
from grpo_ros.training.placement import place_simulator

pytestmark = pytest.mark.xdist_group("machine")  # looks at what all processes leave behind

TASKS = {
    "plain": PickPlace(),
    "randomised": PickPlace(PickPlaceConfig(randomisation=Randomisation(enabled=True))),
    "navigate": Navigate(NavigateConfig(num_obstacles=6)),
}
TASK = TASKS["plain"]


def _remote(task=TASK, num_envs=3, timeout_s=DEADLINE_S, bridge=None):
    bridge = bridge or ForkedBridge(task)
    return RemoteSimulator(task, num_envs, bridge, timeout_s, DEADLINE_S)


@pytest.fixture
def remote():
    """A started remote simulator of 3 environments, closed in the end."""
    simulator = conformance._started(_remote())
    yield simulator
    simulator.close()


def _fault(simulator, fault):
    chunk = torch.zeros(simulator.num_envs, 4, simulator.contract.action_size)
    chunk[0, 0, 0] = fault
    return chunk


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ["plain", "randomised"])
def test_conforms(check, name):
    with conformance.Simulators(lambda num_envs: _remote(TASKS[name], num_envs)) as simulators:
        check(simulators)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_everything_equals_the_composed_simulator_bit_for_bit(task):
    seen = []
    for make in (lambda n: _remote(task, n), lambda n: MujocoSimulator(task, n, ONE_THREAD)):
        simulator, watched = conformance._started(make(5)), []
        simulator.watch = lambda scene, period_s, to=watched: to.append((scene(), period_s))
        results = [simulator.step(chunk) for chunk in conformance._chunks(simulator, 5)]
        restored = simulator.restore(simulator.snapshot([3, 1]), [1, 0], [0, 4])
        views = (simulator.observe(), simulator.scene(), simulator.controller_state())
        hashes = simulator.snapshot().row_hashes()
        seen.append((results, watched, restored, views, hashes, simulator.capabilities))
        simulator.close()
    assert len(seen[0][1]) == 20
    _expect_equal(*seen)


def _expect_equal(one, other):
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other)
    elif dataclasses.is_dataclass(one):
        assert type(one) is type(other)
        for field in dataclasses.fields(one):
            _expect_equal(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            _expect_equal(one[name], other[name])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            _expect_equal(*pair)
    else:
        assert one == other


def test_images_of_the_environments_and_the_camera_that_were_asked_for_come_back(remote):
    images = remote.render(torch.tensor([2, 0]), "wrist")
    assert images.dtype == torch.uint8 and images.shape == (2, 8, 6, 3)
    assert images[:, 0, 0, 0].tolist() == [7, 5]
    assert len(remote.render()) == 3


def test_what_one_call_gave_is_not_touched_by_the_next(remote):
    first = remote.observe()
    kept = {name: value.clone() for name, value in first.items()}
    remote.step(_fault(remote, 1.0))
    assert all(torch.equal(first[name], kept[name]) for name in kept)


def test_a_bridge_killed_in_mid_call_is_named_at_once_and_its_snapshots_outlive_it():
    bridge = ForkedBridge(TASK)
    simulator = conformance._started(_remote(bridge=bridge))
    chunk = _fault(simulator, 0.5)
    simulator.step(chunk)
    written = simulator.snapshot().to_bytes()
    simulator.step(chunk)
    expected = simulator.snapshot().row_hashes()
    began = time.monotonic()
    with pytest.raises(BridgeError, match=f"'step': process {bridge.pids[0]}, .* is gone"):
        simulator.step(_fault(simulator, KILL))
    assert time.monotonic() - began < DEADLINE_S / 4
    with pytest.raises(BridgeError, match=f"'observe' without a bridge: process {bridge.pids[0]}"):
        simulator.observe()
    simulator.reconnect()
    assert len(set(bridge.pids)) == 2
    simulator.restore(Snapshot.from_bytes(written), range(3))
    simulator.step(chunk)
    assert simulator.snapshot().row_hashes() == expected
    simulator.close()


def test_a_bridge_killed_between_calls_is_named(remote):
    os.kill(remote._connector.process.pid, signal.SIGKILL)
    remote._connector.process.join(DEADLINE_S)
    with pytest.raises(BridgeError, match="'scene': process .* is gone"):
        remote.scene()


def test_a_bridge_that_stalls_in_mid_call_is_named_within_the_deadline():
    simulator = conformance._started(_remote(timeout_s=1.0))
    with pytest.raises(BridgeError, match=r"'step': .* not answer within 1 s; it took it up"):
        simulator.step(_fault(simulator, STOP))
    stalled = simulator._connector.process.pid
    simulator.reconnect()
    assert not is_running(stalled)
    simulator.close()


def test_a_fault_in_the_simulator_is_told_and_the_bridge_lives_on(remote):
    before = remote.snapshot().row_hashes()
    with pytest.raises(
        SimulatorError, match="ValueError in the bridge: a fault of the engine"
    ) as e:
        remote.step(_fault(remote, RAISE))
    assert not isinstance(e.value, BridgeError)
    with pytest.raises(SimulatorError, match="chunk of shape") as e:
        remote.step(torch.zeros(1, 4, 5))
    assert e.value.expected.startswith("(3, K,")
    with pytest.raises(SimulatorError, match="'another engine'.*expected 'mujoco"):
        remote.restore(dataclasses.replace(remote.snapshot(), engine="another engine"), range(3))
    with pytest.raises(SimulatorError, match="environment ids"):
        remote.snapshot([7])
    with pytest.raises(SimulatorError, match="operation 'shutdown'.*reset | step"):
        remote._ask(Message({"operation": "shutdown"}))
    assert remote.snapshot().row_hashes() == before


def test_a_bridge_with_another_contract_is_refused():
    other = PickPlace(PickPlaceConfig(horizon=9))
    with pytest.raises(SimulatorError, match="the learner's contract of task 'pick_place'") as e:
        _remote(other, bridge=ForkedBridge(TASK))
    assert "same settings" in e.value.remedy and not isinstance(e.value, BridgeError)


class AnsweredHere:
    """Connector and channel of a bridge that was started by itself, with settings of its own."""

    peer = "here"

    def __init__(self, settings):
        self.served = served_simulator(load_config(["num_threads=1", *settings]))

    def connect(self, timeout_s):
        return self

    def request(self, message, timeout_s):
        return unpack(to_bytes(self.served.answer(unpack(to_bytes(message)))))

    def close(self):
        self.served.close()


def _attached(bridge_settings, learner_settings=()):
    """Return the simulator of a learner that has attached to a running bridge."""
    settings = ("placement=separate", "bridge.attach=batch_bridge", *learner_settings)
    config = load_config(settings)
    task = make_task(config.task, configuration.section(config, "task"))
    return place_simulator(config, task, 2, AnsweredHere(bridge_settings), print)


@pytest.mark.parametrize(
    ("settings", "here", "there"),
    [
        (["task.goal_radius_m=0.3"], "0.025", "0.3"),
        (["task.rewards=[outcome,progress]"], r"\['outcome'\]", r"\['outcome', 'progress'\]"),
        (["task.rest_speed_m_s=1"], "0.05", "1.0"),
        (["task.randomisation.mass=[0.5,2]"], r"\[0.7, 1.4\]", r"\[0.5, 2.0\]"),
        (["mujoco.timestep_s=0.05"], "0.01", "0.05"),
    ],
)
def test_a_running_bridge_that_simulates_or_judges_otherwise_is_refused(settings, here, there):
    key = settings[0].partition("=")[0].replace("task.", "pick_place.")
    message = f"the learner has {key} = {here}; expected the bridge's {key} = {there}; start both"
    with pytest.raises(SimulatorError, match=message):
        _attached(settings)
    _attached(settings, settings).close()


def test_a_running_bridge_of_another_task_is_refused():
    message = "has task = 'pick_place'; expected the bridge's task = 'stack'; "
    with pytest.raises(SimulatorError, match=message):
        _attached(["task=stack"])


def test_settings_that_decide_nothing_may_differ(tmp_path):
    shutil.copytree(ROBOTS_DIRECTORY / "franka_fr3", tmp_path / "franka_fr3")
    _attached([f"robot={tmp_path / 'franka_fr3'}", "seed=3"], ["num_threads=2"]).close()


def test_a_bridge_that_comes_back_as_another_kind_is_refused(remote):
    remote.capabilities = dataclasses.replace(remote.capabilities, exact_mid_episode=False)
    with pytest.raises(SimulatorError, match="came back with"):
        remote.reconnect()
    with pytest.raises(BridgeError, match="another kind of bridge"):
        remote.observe()


def test_what_the_bridges_simulator_refuses_at_its_start_is_told():
    bridge = ForkedBridge(TASK, config=MujocoConfig(timestep_s=0.03, num_threads=1))
    with pytest.raises(SimulatorError, match="a whole number of steps per period"):
        _remote(bridge=bridge)
    assert not is_running(bridge.pids[0])


@pytest.mark.parametrize(
    ("script", "error", "text"),
    [
        (None, ConfigurationError, "'bridge.python' = '.*python': No such file"),
        ("exit 3", BridgeError, "gone before it was ready; it ended with exit code 3"),
        ("sleep 60", BridgeError, "ready within 0.3 s; it ended with exit code -9"),
    ],
    ids=["absent", "ends", "hangs"],
)
def test_an_interpreter_that_is_of_no_use_is_named(tmp_path, script, error, text):
    python = tmp_path / "python"
    if script is not None:
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
    with pytest.raises(error, match=text):
        BridgeProcess("", str(python)).connect(0.3)


def _learn(connection, settings):
    """Be a learner that waits for its end."""
    bridge = BridgeProcess(settings)
    simulator = RemoteSimulator(TASK, 2, bridge, DEADLINE_S, DEADLINE_S)
    connection.send(bridge.process.pid)
    connection.recv()
    simulator.close()


def test_a_bridge_ends_with_a_learner_that_is_killed():
    before, (ours, theirs) = shared_memory(), FORKS.Pipe()
    settings = to_yaml(load_config(["task=pick_place", "num_threads=1"]))
    learner = FORKS.Process(target=_learn, args=(theirs, settings))
    learner.start()
    assert ours.poll(2 * DEADLINE_S)
    pid = ours.recv()
    assert is_running(pid) and os.getsid(pid) == pid
    os.kill(learner.pid, signal.SIGKILL)
    until(lambda: not is_running(pid), "the bridge to end")
    learner.join(DEADLINE_S)
    assert shared_memory() <= before


def test_settings_that_the_bridge_refuses_are_named_to_the_learner(capfd):
    bridge = BridgeProcess("task: pick_plaice")
    with pytest.raises(ConfigurationError, match="'task' = 'pick_plaice'.*did you mean"):
        bridge.connect(DEADLINE_S)
    bridge.close()
    assert capfd.readouterr() == ("", "")
