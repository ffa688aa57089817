"""Trials over ROS in lock step: equal, episode by episode, to the same episodes without ROS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from deploy_helpers import ENVIRONMENT, NodeProcess, export_untrained  # noqa: E402

from grpo_ros.training.evaluation import held_out_keys  # noqa: E402

HERE = Path(__file__).resolve().parent
pytestmark = [pytest.mark.ros, pytest.mark.timeout(180)]


def run_series(folder: Path, policy: Path, lock_step: bool, episodes: int) -> tuple[int, str]:
    common = {"policy": policy, "lock_step": lock_step, "first_episode": 3}
    speed = {"real_time_factor": 4.0}
    nodes = [
        NodeProcess("simulator_bridge", folder / "bridge.log", **common, **speed),
        NodeProcess(
            "policy_server",
            folder / "server.log",
            policy=policy,
            lock_step=lock_step,
            use_sim_time=True,
        ),
    ]
    evaluator = NodeProcess(
        "evaluator", folder / "evaluator.log", **common, **speed, episodes=episodes
    )
    try:
        code = evaluator.wait(120.0)
    finally:
        codes = [node.stop() for node in (evaluator, *nodes)]
    assert codes[1:] == [0, 0], "\n".join(node.output for node in nodes)
    return code, evaluator.output + "".join(node.output for node in nodes)


def only_report(folder: Path) -> dict:
    (path,) = (folder / "deployments").glob("*.json")
    return json.loads(path.read_text())


def test_lock_step_outcomes_equal_those_without_ros_episode_by_episode(tmp_path: Path) -> None:
    policy = export_untrained(tmp_path / "policy.onnx")
    code, output = run_series(tmp_path, policy, True, 4)
    assert code == 0, output
    report = only_report(tmp_path)
    assert report["episodes"] == report["in_process"]["identical_episodes"] == 4
    assert report["mode"] == "lock_step" and report["is_complete"]
    keys = [list(key) for key in held_out_keys(4, first=3)]
    assert [trial["key"] for trial in report["trials"]] == keys
    for trial in report["trials"]:
        assert trial["steps"] == trial["periods"] == 12
        assert trial["interventions"] == trial["held"] == {}
    low, high = report["wilson_95"]
    assert 0.0 <= low <= report["successes"] / 4 <= high <= 1.0
    assert "wrote" in output and report["versions"]["ros"]


def test_free_running_trials_are_counted_and_compared(tmp_path: Path) -> None:
    policy = export_untrained(tmp_path / "policy.onnx")
    code, output = run_series(tmp_path, policy, False, 2)
    assert code == 0, output
    report = only_report(tmp_path)
    assert (report["episodes"], report["mode"]) == (2, "free_running")
    assert [trial["steps"] for trial in report["trials"]] == [12, 12]
    assert len(report["in_process"]["outcomes"]) == 2
    assert report["commanded"]["motions"] > 0 and report["commanded"]["is_within_limits"]


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """An environment in which the source tree is found as an installed package."""
    prefix = tmp_path / "prefix"
    for folder in ("share/ament_index/resource_index/packages", "share/grpo_ros", "lib/grpo_ros"):
        (prefix / folder).mkdir(parents=True)
    (prefix / "share/ament_index/resource_index/packages/grpo_ros").touch()
    for node in ("simulator_bridge", "policy_server", "evaluator"):
        script = prefix / "lib/grpo_ros" / node
        script.write_text(
            f"#!{sys.executable}\nimport sys\nfrom grpo_ros.nodes.start import {node}\n"
            f"sys.exit({node}())\n"
        )
        script.chmod(0o755)
    paths = f"{prefix}:{os.environ.get('AMENT_PREFIX_PATH', '')}"
    return {**os.environ, **ENVIRONMENT, "AMENT_PREFIX_PATH": paths, "ROS_LOG_DIR": str(tmp_path)}


def launch(environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    runner, file = HERE / "launch_runner.py", HERE.parents[1] / "launch" / "deploy.launch.py"
    done = subprocess.run(
        [sys.executable, str(runner), str(file), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_launch_files_exit_status_says_whether_the_work_was_done(
    tmp_path: Path, installed: dict[str, str]
) -> None:
    policy = export_untrained(tmp_path / "policy.onnx", horizon=4)
    arguments = ("episodes:=2", "lock_step:=true", "namespace:=cell")
    code, output = launch(installed, f"policy:={policy}", *arguments)
    assert code == 0, output
    assert only_report(tmp_path)["in_process"]["identical_episodes"] == 2
    damaged = tmp_path / "damaged" / "policy.onnx"
    damaged.parent.mkdir()
    damaged.write_bytes(policy.read_bytes()[:-100])
    code, output = launch(installed, f"policy:={damaged}", *arguments)
    assert code == 1 and "damaged/policy.onnx" in output and "Traceback" not in output
    assert not (damaged.parent / "deployments").exists()
