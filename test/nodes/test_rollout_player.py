"""A failed rollout is shown over and over, as training is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")

from deploy_helpers import NodeProcess, running_client  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from visualization_msgs.msg import MarkerArray  # noqa: E402

from grpo_ros import presets, typed  # noqa: E402
from grpo_ros.configuration import load_config  # noqa: E402
from grpo_ros.nodes.rollout_player import VIEW, PlayerConfig  # noqa: E402
from grpo_ros.nodes.shared import qos  # noqa: E402
from grpo_ros.nodes.training.path_markers import PATHS  # noqa: E402
from grpo_ros.training.failures.of_run import ReplayedRun  # noqa: E402
from grpo_ros.training.trainer import Trainer  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(240)]
SMALL = (
    "collection.num_groups=2",
    "collection.group_size=4",
    "collection.env_steps=300",
    "demonstrations.episodes=4",
    "behaviour_cloning.num_steps=60",
    "evaluation.episodes=8",
    "evaluation.final_episodes=8",
    "film=false",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ReplayedRun:
    output = tmp_path_factory.mktemp("runs")
    trainer = Trainer(load_config([*SMALL, f"output={output}"]))
    trainer.run()
    return ReplayedRun(trainer.run_directory.path)


def test_it_shows_the_rollout_from_its_start_to_its_end_and_what_else_could_be(
    run: ReplayedRun, tmp_path: Path
) -> None:
    failure = run.store.failures()[0]
    with run.opened(failure.id) as opened:
        scenes = opened.replayed.scenes
    first, last = (scenes[i].joint_position[0].numpy() for i in (0, -1))

    def shows(position: np.ndarray) -> object:
        return lambda message: np.array_equal(np.array(message.position), position)

    with running_client() as client:
        joint_states = opened.simulator.task.robot.interfaces.joint_states
        client.listen(JointState, joint_states, qos.STATE)
        client.listen(MarkerArray, "simulator_bridge/group_paths", qos.LATCHED)
        node = NodeProcess(
            "rollout_player",
            tmp_path / "log",
            run=str(run.path),
            rollout=str(failure.id),
            members=3,
            hold_s=0.2,
            rate_hz=30.0,
        )
        try:
            paths = client.wait_for("simulator_bridge/group_paths")
            client.forget()
            client.wait_for(joint_states, shows(last))
            client.forget()
            client.wait_for(joint_states, shows(first))  # again from the beginning
        finally:
            assert node.stop() == 0, node.output
    assert [marker for marker in paths.markers if marker.ns == PATHS]
    assert f"rollout {failure.id}" in node.output and "replayed bit for bit" in node.output


def test_what_is_not_there_ends_it_with_a_line(run: ReplayedRun, tmp_path: Path) -> None:
    for name, settings, told in (
        ("run", {"run": str(tmp_path)}, "expected a run's folder"),
        ("id", {"run": str(run.path), "rollout": "9999/0/0"}, "nothing is kept of iteration 9999"),
    ):
        node = NodeProcess("rollout_player", tmp_path / name, **settings)
        try:
            assert node.wait() == 1
        finally:
            node.stop()
        assert told in node.output and "Traceback" not in node.output


def test_its_parameter_file_holds_every_parameter_with_its_default() -> None:
    tree = yaml.safe_load(presets.node_parameters("rollout_player").read_text())
    defaults = {**typed.encode(PlayerConfig()), **typed.encode(VIEW)}
    assert tree["/**/simulator_bridge"]["ros__parameters"] == defaults
