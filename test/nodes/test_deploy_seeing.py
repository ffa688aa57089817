"""Policies that see images, over ROS: in lock step equal to the same episodes without ROS."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")

from deploy_helpers import NodeProcess, running_client  # noqa: E402
from seeing_policy import export_seeing  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402

from grpo_ros.deployment.simulation.simulated_task import task_of  # noqa: E402
from grpo_ros.errors import MissingExtraError  # noqa: E402
from grpo_ros.export.onnx_export import export_policy  # noqa: E402
from grpo_ros.export.policy_file import load_policy_file  # noqa: E402
from grpo_ros.nodes.shared import messages, qos  # noqa: E402
from grpo_ros.simulators.mujoco import renderer  # noqa: E402
from grpo_ros.simulators.mujoco.simulator import MujocoConfig, MujocoSimulator  # noqa: E402
from grpo_ros.tasks.reach import Reach, ReachConfig  # noqa: E402
from grpo_ros.training.evaluation import held_out_keys  # noqa: E402

pytestmark = [
    pytest.mark.ros,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(renderer.rendering_problem()), reason="nothing renders here"),
]
HORIZON, EPISODES, GAIN = 12, 2, 4.0


def export_tiny_gr00t(path: Path) -> Path:
    """Write the policy of a tiny GR00T of random weights for task reach; return its path."""
    from grpo_ros.policies.gr00t.config import Gr00tConfig
    from grpo_ros.policies.gr00t.files.tiny_checkpoint import make_tiny_checkpoint_for
    from grpo_ros.policies.gr00t.policy import Gr00tPolicy

    contract = Reach(ReachConfig(horizon=HORIZON)).contract()
    try:
        # With these weights the gate has nothing to say: the tip stays within the workspace.
        checkpoint = make_tiny_checkpoint_for(contract, path.parent / "checkpoint", seed=3)
        config = Gr00tConfig(policy_path=str(checkpoint))
        policy = Gr00tPolicy(config, contract, torch.Generator().manual_seed(0))
    except MissingExtraError as problem:
        pytest.skip(str(problem))
    with torch.no_grad():  # random weights move hardly at all
        for parameter in policy.action_head.head.action_decoder.parameters():
            parameter.mul_(GAIN)
    export_policy(policy, policy.annotate(contract), path)
    return path


@pytest.fixture(scope="module", params=["seeing", "gr00t"])
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param) / "policy.onnx"
    if request.param == "gr00t":
        return export_tiny_gr00t(path)
    return export_seeing(path, HORIZON)


@dataclasses.dataclass
class Series:
    """What a series over ROS left behind."""

    report: dict[str, Any]
    output: str
    joints: dict[int, np.ndarray]
    """Stamp -> measured positions."""


def run_series(folder: Path, policy: Path, lock_step: bool, **server: Any) -> Series:
    common = {"policy": policy, "lock_step": lock_step}
    timing = {"use_sim_time": True, "autostart": True}
    settings = {"compare_in_process": lock_step, "episodes": EPISODES}
    with running_client() as client:
        client.listen(JointState, "joint_states", qos.COMMANDS_HEARD)
        nodes = [
            NodeProcess("simulator_bridge", folder / "bridge.log", **common),
            NodeProcess("policy_server", folder / "server.log", **common, **timing, **server),
        ]
        try:
            client.wait_for_publisher("joint_states")  # two episodes are over within a second
            nodes.append(NodeProcess("evaluator", folder / "evaluator.log", **common, **settings))
            code = nodes[-1].wait(200.0)
        finally:
            codes = [node.stop() for node in nodes]
        output = "".join(node.output for node in nodes)
        assert code == 0 and codes[:2] == [0, 0], output
        heard = client.heard("joint_states")
    joints = {messages.to_ns(m.header.stamp): np.array(m.position) for m in heard}
    (path,) = sorted((policy.parent / "deployments").glob("*.json"))[-1:]
    return Series(json.loads(path.read_text()), output, joints)


def test_in_lock_step_every_state_is_that_of_the_episode_without_ros(
    policy: Path, tmp_path: Path
) -> None:
    """Bit for bit: the images, and so what the policy makes of them, are the same."""
    series = run_series(tmp_path, policy, True)
    assert series.report["in_process"]["identical_episodes"] == EPISODES, series.output
    expected = without_ros(policy)
    found = [series.joints[stamp] for stamp in sorted(series.joints)]
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.array_equal(ours, theirs)
    moved = np.abs(expected[HORIZON - 1] - expected[0]).max()
    assert moved > math.radians(1.0), "a policy that stands still proves nothing"


def without_ros(path: Path) -> list[np.ndarray]:
    """Return the joints' positions of each state in which a command was asked for."""
    policy = load_policy_file(path)
    simulator = MujocoSimulator(task_of(policy.contract), 1, MujocoConfig(num_threads=1))
    names = [field.name for field in policy.contract.observation]
    states = []

    def note(*_: Any) -> None:
        states.append(simulator.scene().joint_position[0].numpy().copy())

    simulator.watch = note
    for key in held_out_keys(EPISODES):
        obs = simulator.reset(simulator.task.sample([key]), None, [key])
        note()
        done = False
        while not done:
            chunk = policy.infer({name: obs[name].numpy() for name in names})
            result = simulator.step(torch.from_numpy(chunk))
            obs, done = result.obs, bool((result.terminated | result.truncated)[0])
        states.pop()  # in the last state no command is asked for, and it is not published
    simulator.close()
    return states


def test_free_running_it_is_served_as_a_camera_would(policy: Path, tmp_path: Path) -> None:
    series = run_series(tmp_path, policy, False, **{"runner.execution.lead_periods": 1})
    report = series.report
    assert report["episodes"] == EPISODES and report["is_complete"]
    for trial in report["trials"]:
        assert trial["periods"] > 0 and not trial["error"]
