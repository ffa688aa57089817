"""Where the simulator lives, and how often that place is lost, changes nothing that is learned."""

import json
import signal
from pathlib import Path

import pytest
from bridge_helpers import DEADLINE_S, ForkedBridge, is_running, shared_memory

from grpo_ros import configuration
from grpo_ros.configuration import config_hash, load_config
from grpo_ros.errors import BridgeError, ConfigurationError
from grpo_ros.simulators.remote.bridge_process import BridgeProcess
from grpo_ros.simulators.remote.simulator import RemoteSimulator
from grpo_ros.tasks.registry import make_task
from grpo_ros.training.observer import TrainingObserver
from grpo_ros.training.placement import Losses, place_simulator, without_ros
from grpo_ros.training.trainer import Trainer

pytestmark = pytest.mark.xdist_group("machine")  # looks at what all processes leave behind

SMALL = (
    "collection.num_groups=3",
    "collection.group_size=2",
    "collection.env_steps=3600",
    "demonstrations.episodes=3",
    "behaviour_cloning.num_steps=40",
    "algorithm.objectives=[score]",
    "evaluation.every_iterations=4",
    "evaluation.episodes=6",
    "evaluation.final_episodes=6",
    "checkpoint.every_iterations=1000",
    "film=false",
    "mujoco.num_threads=1",
    "pick_place.horizon=60",
)
SEPARATE = "placement=separate"
NUM_KILLS = 10


class Doing(TrainingObserver):
    """Does something after each of the first iterations, and keeps the messages."""

    def __init__(self, action, times):
        self.action, self.times, self.messages = action, times, []

    def on_iteration(self, metrics, progress):
        if self.times > 0:
            self.times -= 1
            self.action()

    def on_message(self, text):
        self.messages.append(text)


def _trainer(output, *overrides, bridge=None, observer=None):
    config = load_config([*SMALL, f"output={output}", *overrides])
    observers = [observer] if observer else []
    return Trainer(config, observers=observers, connector=bridge)


def _bridge(poison=None):
    config = load_config(SMALL)
    return ForkedBridge(make_task(config.task, configuration.section(config, "task")), poison)


@pytest.fixture(scope="module")
def composed(tmp_path_factory):
    """A finished run whose simulator was in this process."""
    trainer = _trainer(tmp_path_factory.mktemp("runs"))
    trainer.run()
    return trainer


def _expect_the_same(trainer, composed):
    assert trainer.state_hash() == composed.state_hash()
    mine, theirs = trainer.run_directory, composed.run_directory
    assert mine.metrics.read_text() == theirs.metrics.read_text()
    names = ("successes", "episodes", "start", "env_steps", "heldout_sha256")
    results = [json.loads(run.evaluation.read_text()) for run in (mine, theirs)]
    assert [results[0][name] for name in names] == [results[1][name] for name in names]


def test_a_run_whose_bridge_is_killed_ten_times_equals_one_that_was_never_killed(
    tmp_path, composed
):
    assert composed.iteration >= NUM_KILLS
    before = shared_memory()
    poison = tmp_path / "poison"
    bridge, observer = _bridge(poison), Doing(poison.touch, NUM_KILLS)
    trainer = _trainer(tmp_path / "runs", SEPARATE, bridge=bridge, observer=observer)
    assert trainer.run().state == "finished"
    _expect_the_same(trainer, composed)

    assert len(bridge.pids) == NUM_KILLS + 1
    assert not any(is_running(pid) for pid in bridge.pids)
    assert shared_memory() <= before
    assert "memfd:grpo_ros" not in Path("/proc/self/maps").read_text()
    lost = [text for text in observer.messages if text.startswith("bridge lost: 'step'")]
    assert len(lost) == NUM_KILLS
    timing = json.loads(trainer.run_directory.timing.read_text().splitlines()[-1])
    assert timing["lost_bridges"] == trainer.losses.bridges == NUM_KILLS
    dropped = sum("3 groups dropped, to be drawn again" in text for text in lost)
    assert timing["dropped_groups"] == 3 * dropped > 0


def test_groups_that_were_never_begun_are_not_counted_as_dropped():
    class FoundAtTheThirdTry(RemoteSimulator):
        def __init__(self):
            self.num_tries = 0

        def reconnect(self):
            self.num_tries += 1
            if self.num_tries < 3:
                raise BridgeError("no bridge is there")

    told, rollouts = [], iter([BridgeError("it was killed"), "rollout"])

    def work():
        if isinstance(found := next(rollouts), BridgeError):
            raise found
        return found

    losses = Losses(FoundAtTheThirdTry(), 10, told.append)
    assert losses.redo(work, 4) == "rollout"
    assert (losses.bridges, losses.groups) == (3, 4)
    assert ["dropped" in line for line in told] == [True, False, False]


def test_a_process_of_its_own_is_started_and_ends_quietly_when_told(tmp_path, capfd):
    observer = Doing(None, 0)
    trainer = _trainer(tmp_path, SEPARATE, observer=observer)
    process = trainer.simulator._connector.process
    assert any(f"starting the simulator in process {process.pid}" in m for m in observer.messages)
    assert "process is ready after" in observer.messages[-1]
    process.terminate()
    assert process.wait(DEADLINE_S) == 128 + signal.SIGTERM
    with pytest.raises(BridgeError, match=f"process {process.pid}, .* is gone"):
        trainer.simulator.observe()
    trainer.simulator.close()
    assert capfd.readouterr().err == ""


def test_a_bridge_that_is_lost_again_and_again_ends_training_by_name(tmp_path):
    poison = tmp_path / "poison"
    poison.write_text("always")
    bridge = _bridge(poison)
    trainer = _trainer(tmp_path / "runs", SEPARATE, "bridge.max_restarts=2", bridge=bridge)
    with pytest.raises(BridgeError, match="lost 3 times in a row: 'step'.*max_restarts = 2"):
        trainer.run()
    status = trainer.run_directory.read_json("status.json")
    assert status["state"] == "failed" and "BridgeError" in status["error"]
    assert not any(is_running(pid) for pid in bridge.pids)


@pytest.mark.parametrize("setting", ["bridge.attach=batch_bridge", "bridge.transport=messages"])
def test_without_ros_a_running_bridge_cannot_be_found(tmp_path, setting):
    with pytest.raises(ConfigurationError, match="the node `learner`"):
        _trainer(tmp_path, SEPARATE, setting)


def test_a_run_whose_bridge_was_found_over_ros_is_exported_without_it():
    config = load_config([SEPARATE, "bridge.attach=batch_bridge", "bridge.transport=messages"])
    bridge = without_ros(config).bridge
    assert (bridge.placement, bridge.attach, bridge.transport) == ("separate", "", "shared_memory")


def test_the_placement_is_no_part_of_what_decides_results():
    hashes = {config_hash(load_config([word])) for word in ("seed=0", SEPARATE, "bridge.python=x")}
    assert len(hashes) == 1


def test_a_bridge_that_is_killed_before_it_is_ready_is_started_again(monkeypatch):
    config = load_config([*SMALL, SEPARATE])
    task = make_task(config.task, configuration.section(config, "task"))
    told, start = [], BridgeProcess._start

    def killed_at_first(self, theirs):
        process = start(self, theirs)
        if not told:
            process.kill()
        return process

    monkeypatch.setattr(BridgeProcess, "_start", killed_at_first)

    def say(line):
        told.append(line)

    simulator = place_simulator(config, task, 2, None, say)
    simulator.close()
    assert sum("bridge lost" in line and "starting it again" in line for line in told) == 1
