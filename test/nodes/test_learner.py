"""The learner over ROS: watched, steered, stopped, resumed; and its launch file's exit status."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import MagicMock

import pytest

pytest.importorskip("rclpy")
import rclpy
from deploy_helpers import ENDLESS_TRAINING
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger
from tf2_msgs.msg import TFMessage

from grpo_ros.configuration import load_config
from grpo_ros.export.policy_file import load_policy_file
from grpo_ros.nodes.learner import _train
from grpo_ros.nodes.shared import qos
from grpo_ros.robots.robot import load_robot
from grpo_ros.training.checkpoint import save_checkpoint
from grpo_ros.training.run_directory import RunDirectory

pytestmark = [pytest.mark.ros, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
RUNNER = Path(__file__).with_name("launch_runner.py")
DOMAIN = 41 + os.getpid() % 20
TIMEOUT_S = 90.0


@pytest.fixture
def environment(tmp_path):
    """Where processes find the package: an ament prefix with its executables."""
    prefix = tmp_path / "prefix"
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "grpo_ros").touch()
    (prefix / "share" / "grpo_ros").mkdir()
    scripts = prefix / "lib" / "grpo_ros"
    scripts.mkdir(parents=True)
    for name in ("learner", "batch_bridge"):
        script = scripts / name
        script.write_text(
            f"#!{sys.executable}\nimport sys\nfrom grpo_ros.nodes.start import {name}\n"
            f"sys.exit({name}())\n"
        )
        script.chmod(0o755)
    return {
        **os.environ,
        "AMENT_PREFIX_PATH": f"{prefix}:{os.environ.get('AMENT_PREFIX_PATH', '')}",
        "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        "PYTHONUNBUFFERED": "1",
        "ROS_DOMAIN_ID": str(DOMAIN),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_LOG_DIR": str(tmp_path / "log"),
        "OMP_NUM_THREADS": "1",
    }


class Started:
    """A process whose output goes to a file."""

    def __init__(self, command, environment, log):
        self.log = log
        with log.open("w") as out:
            self.process = subprocess.Popen(
                command,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    @property
    def output(self):
        """All output so far."""
        return self.log.read_text()

    def wait_for(self, text):
        """Wait until the output contains a text."""
        deadline = time.monotonic() + TIMEOUT_S
        while text not in self.output:
            assert self.process.poll() is None, f"ended early:\n{self.output}"
            assert time.monotonic() < deadline, f"no '{text}' in:\n{self.output}"
            time.sleep(0.05)

    def wait(self):
        """Wait for the end; return the exit code."""
        return self.process.wait(TIMEOUT_S)

    def end(self):
        """Stop what still runs."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10.0)


@pytest.fixture
def start(environment, tmp_path):
    """Starts commands that are stopped in the end."""
    started = []

    def run(*command):
        one = Started([*map(str, command)], environment, tmp_path / f"{len(started)}.log")
        started.append(one)
        return one

    yield run
    for one in started:
        one.end()


def _learner(start, output, **settings):
    values = {**ENDLESS_TRAINING, "output": output, **settings}
    words = [f"{key}={value}" for key, value in values.items()]
    return start(sys.executable, "-m", "grpo_ros.nodes.learner", *words)


class Watcher:
    """A node that hears the learner's topics and calls its services."""

    def __init__(self):
        self.context = Context()
        rclpy.init(context=self.context, domain_id=DOMAIN)
        self.node = Node("watcher", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.heard = {}
        for topic, kind, profile in (
            ("/clock", Clock, qos.CLOCK),
            ("joint_states", JointState, qos.STATE),
            ("/tf", TFMessage, qos.TF),
            ("/tf_static", TFMessage, qos.LATCHED),
            ("robot_description", String, qos.LATCHED),
            ("/diagnostics", DiagnosticArray, qos.DIAGNOSTICS),
        ):
            self.heard[topic] = []
            self.node.create_subscription(kind, topic, self.heard[topic].append, profile)

    def until(self, condition, what):
        """Spin until a condition holds."""
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            self.executor.spin_once(timeout_sec=0.05)

    def spin(self, seconds):
        """Spin for some time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.executor.spin_once(timeout_sec=0.05)

    def call(self, kind, name, request):
        """Call a service; return its response."""
        client = self.node.create_client(kind, name)
        self.until(client.service_is_ready, name)
        future = client.call_async(request)
        self.until(future.done, f"an answer of {name}")
        return future.result()

    def state(self):
        """Return the values of the last diagnostics."""
        (status,) = self.heard["/diagnostics"][-1].status
        return {pair.key: pair.value for pair in status.values}

    def close(self):
        """Leave."""
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def watcher():
    """A watcher that leaves in the end."""
    one = Watcher()
    yield one
    one.close()


def _lines(run):
    return len((run / "metrics.jsonl").read_text().splitlines())


def test_a_running_learner_is_watched_steered_stopped_and_resumed(start, watcher, tmp_path):
    learner = _learner(start, tmp_path / "runs")
    learner.wait_for("start: success")
    heard = watcher.heard
    watcher.until(lambda: len(heard["/clock"]) > 20 and all(heard.values()), "all topics")

    saved = watcher.call(Trigger, "/learner/save_checkpoint", Trigger.Request())
    assert saved.success and (Path(saved.message) / "manifest.json").is_file()
    run = Path(saved.message).parents[1]

    paused = watcher.call(SetBool, "/learner/pause", SetBool.Request(data=True))
    assert paused.success
    watcher.spin(1.0)
    lines = _lines(run)
    watcher.spin(1.5)
    assert _lines(run) == lines
    assert watcher.state()["state"] == "paused"
    exported = watcher.call(Trigger, "/learner/export_policy", Trigger.Request())
    assert exported.success
    assert load_policy_file(exported.message).contract.task == "pick_place"
    assert watcher.call(SetBool, "/learner/pause", SetBool.Request(data=False)).success
    watcher.until(lambda: _lines(run) > lines + 3, "training to go on")
    watcher.until(lambda: watcher.state()["state"] == "running", "diagnostics")

    _check_view(heard)
    learner.process.send_signal(signal.SIGINT)
    assert learner.wait() == 0, learner.output
    last = learner.output.strip().splitlines()[-1]
    assert "interrupted, resume with resume:=" in last and "checkpoints/" in last
    assert json.loads((run / "status.json").read_text())["state"] == "stopped"

    again = _learner(start, tmp_path / "runs")
    again.wait_for(f"resuming {run}")
    lines = _lines(run)
    watcher.until(lambda: _lines(run) > lines, "training to go on")
    again.process.send_signal(signal.SIGTERM)
    assert again.wait() == 0, again.output


def _check_view(heard):
    """Check what the training view has published."""
    robot = load_robot("franka_fr3")
    times = [(m.clock.sec, m.clock.nanosec) for m in heard["/clock"]]
    assert times == sorted(times), "experience time went back"
    joints = heard["joint_states"][-1]
    assert tuple(joints.name) == robot.joint_names
    assert len(joints.position) == len(joints.velocity) == len(joints.name)
    assert joints.header.stamp.sec + joints.header.stamp.nanosec > 0
    children = {t.child_frame_id for m in heard["/tf"] for t in m.transforms}
    fixed = {t.child_frame_id for m in heard["/tf_static"] for t in m.transforms}
    links = set(re.findall(r'<child link="([^"]+)"', robot.urdf))
    assert links <= children | fixed and not children & fixed
    assert {"cube", "goal"} <= children
    assert heard["robot_description"][0].data == robot.urdf


def test_a_repeated_interrupt_is_one_clean_stop(start, tmp_path):
    learner = _learner(start, tmp_path / "runs")
    learner.wait_for("start: success")
    learner.process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    learner.process.send_signal(signal.SIGINT)  # the same Ctrl-C once more
    assert learner.wait() == 0, learner.output
    assert learner.output.count("interrupted, resume with") == 1


@pytest.mark.parametrize("is_saved", [True, False])
def test_an_end_at_once_says_what_can_be_gone_on_with(tmp_path, monkeypatch, is_saved):
    """A second signal, while something long is under way."""

    killed = MagicMock(run_directory=RunDirectory(tmp_path))
    killed.run.side_effect = SystemExit(130)
    if is_saved:
        save_checkpoint(killed.run_directory.checkpoints / "000001", {"iteration": 1})
    monkeypatch.setattr("grpo_ros.training.trainer.Trainer", lambda *_, **__: killed)
    code, line = _train(load_config(), MagicMock(), MagicMock(), MagicMock(), False)
    assert code == 130
    assert (f"resume with resume:={tmp_path} (or resume:=auto)" in line) == is_saved
    assert ("before there was anything to save" in line) == (not is_saved)


def test_a_mistake_is_one_line_and_a_non_zero_exit_code(start, tmp_path):
    learner = _learner(start, tmp_path / "runs", grup_size=3)
    assert learner.wait() == 1
    last = learner.output.strip().splitlines()[-1]
    assert "unknown key 'grup_size'" in last and "Traceback" not in learner.output


def _launch(start, output, **settings):
    values = {**ENDLESS_TRAINING, "output": output, **settings}
    words = [f"{key}:={value}" for key, value in values.items()]
    return start(sys.executable, RUNNER, ROOT / "launch" / "train.launch.py", *words)


@pytest.mark.parametrize(
    "placement", ["composed", pytest.param("separate", marks=pytest.mark.slow)]
)
def test_ctrl_c_of_a_launch_is_one_clean_stop(start, tmp_path, placement):
    launch = _launch(start, tmp_path / "runs", seed=2, rviz="true", placement=placement)
    launch.wait_for("start: success")
    os.killpg(launch.process.pid, signal.SIGINT)  # launch forwards it to the learner once more
    assert launch.wait() in (0, 130), launch.output
    assert launch.output.count("interrupted, resume with") == 1
    assert "process has finished cleanly" in launch.output
    assert "Traceback" not in launch.output
    (run,) = (tmp_path / "runs" / "pick_place" / "grpo").iterdir()
    assert json.loads((run / "status.json").read_text())["state"] == "stopped"
    assert run.name.endswith("_2")


def test_a_launch_ends_with_the_learner_and_its_status(start, tmp_path):
    done = _launch(start, tmp_path / "runs", **{"collection.env_steps": 500})
    assert done.wait() == 0, done.output
    (line,) = [line for line in done.output.splitlines() if "finished: success" in line]
    for name in ("policy.onnx", "evaluation.json", "report.html"):
        assert Path(re.search(rf"(\S+{name})", line)[1]).is_file()
    failed = _launch(start, tmp_path / "runs", resume="/nowhere")
    assert failed.wait() != 0
    assert "is not a run directory" in failed.output


@pytest.mark.slow
def test_a_launch_with_a_separate_simulator_outlives_its_process(start, tmp_path):
    settings = {"placement": "separate", "collection.env_steps": 500}
    launch = _launch(start, tmp_path / "runs", **settings)
    launch.wait_for("demonstrations of")  # all the evaluation and training is still to come
    (pid,) = re.findall(r"\[batch_bridge-\d+\]: process started with pid \[(\d+)\]", launch.output)
    os.kill(int(pid), signal.SIGKILL)
    assert launch.wait() == 0, launch.output
    assert "bridge lost" in launch.output and "finished: success" in launch.output
    assert launch.output.count("attached to process") == 2
    assert "Traceback" not in launch.output


def test_a_launch_refuses_a_mistake_before_it_starts_anything(start, tmp_path):
    launch = _launch(start, tmp_path / "runs", grup_size=4)
    assert launch.wait() != 0
    assert "did you mean 'group_size'?" in launch.output
    assert "process started" not in launch.output
