"""The evaluator: what was commanded counts, and no trial is lost on the way down."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

from deploy_helpers import ENVIRONMENT, environment, export_untrained  # noqa: E402
from played_robot import until  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

from grpo_ros.deployment.records.trials import Trial, TrialError  # noqa: E402
from grpo_ros.deployment.safety.curve import Curve  # noqa: E402
from grpo_ros.nodes import evaluator  # noqa: E402
from grpo_ros.nodes.evaluator import Evaluator, evaluate  # noqa: E402
from grpo_ros.nodes.shared import messages, qos  # noqa: E402
from grpo_ros.nodes.shared.process import Process, spinning  # noqa: E402
from grpo_ros.robots.robot import load_robot  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(120)]
ROBOT = load_robot("franka_fr3")
TOPIC = ROBOT.interfaces.arm_trajectory_topic
PERIOD_NS = 50_000_000
SECONDS_SINCE = 100_000_000_000


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_untrained(tmp_path_factory.mktemp("exported") / "policy.onnx", horizon=4)


@pytest.fixture
def process(exported: Path, tmp_path: Path) -> Iterator[Process]:
    """An evaluator of two episodes, which succeed, without a bridge and a server."""
    policy = shutil.copy(exported, tmp_path)
    given = {"policy": str(policy), "episodes": 2, "compare_in_process": False}
    overrides = [Parameter(name, value=value) for name, value in given.items()]
    with (
        environment(ENVIRONMENT),
        spinning(lambda: Evaluator(parameter_overrides=overrides), args=[]) as process,
    ):
        process.node.wait_until_ready = lambda: None
        trials_do(process, lambda episode: None)
        yield process


def trials_do(process: Process, action: Callable[[int], None]) -> None:
    """Have each trial do something besides."""

    def run_trial(episode: int, key: tuple[int, ...]) -> Trial:
        action(episode)
        return Trial(episode, key, True, 1.0, 4, False, periods=4)

    process.node.run_trial = run_trial


def trials_send(process: Process, *sent: JointTrajectory) -> None:
    """Have the first trial publish what a policy server would, and wait until it was heard."""
    node = process.node
    publisher = node.create_publisher(JointTrajectory, TOPIC, qos.COMMANDS_HEARD)

    def send(episode: int) -> None:
        until(lambda: publisher.get_subscription_count() == 1, "the evaluator's ear")
        for message in sent if episode == 0 else ():
            publisher.publish(message)
        audit = node._audit
        until(lambda: audit.num_motions + audit.num_unreadable == len(sent), "all commands")

    trials_do(process, send)


def still(position: float, number: int = 0) -> JointTrajectory:
    """A trajectory that stands somewhere, from a period on."""
    joints = len(ROBOT.arm_joints)
    place = np.array([np.mean((x.lower, x.upper)) for x in ROBOT.limits[:joints]]) + position
    curve = Curve(np.zeros(1), place[None], np.zeros((1, joints)))
    stamp_ns = SECONDS_SINCE + number * PERIOD_NS
    return messages.curve_trajectory(stamp_ns, ROBOT.arm_joints, curve)


def without_velocities() -> JointTrajectory:
    message = still(0.0)
    message.points[0].velocities = []
    return message


def of_other_joints() -> JointTrajectory:
    message = still(0.0)
    message.joint_names = message.joint_names[::-1]
    return message


def written(process: Process) -> dict[str, Any]:
    (path,) = (Path(process.node.config.policy).parent / "deployments").glob("*.json")
    return json.loads(path.read_text())


# ---------------------------------------------------------------- commands


def test_commands_within_limits_are_written_down(process: Process) -> None:
    trials_send(process, still(0.0), still(0.0, 1))
    assert evaluate(process) == 0
    commanded = written(process)["commanded"]
    assert commanded["motions"] == 2 and commanded["is_within_limits"]


@pytest.mark.parametrize(
    "second",
    [still(0.1, 1), without_velocities(), of_other_joints(), JointTrajectory()],
    ids=["jump", "no_velocities", "other_joints", "empty"],
)
def test_a_jump_or_a_command_that_cannot_be_read_exceeds_the_limits(
    process: Process, second: JointTrajectory
) -> None:
    trials_send(process, still(0.0), second)
    assert evaluate(process) == 1
    found = written(process)
    assert found["is_complete"] and not found["commanded"]["is_within_limits"]


def test_trials_of_a_server_that_publishes_and_is_not_heard_do_not_count_as_within_limits(
    process: Process, capfd: pytest.CaptureFixture[str]
) -> None:
    trials_send(process)
    assert evaluate(process) == 1
    assert "no trajectory was heard in 8 periods" in capfd.readouterr().err
    commanded = written(process)["commanded"]
    assert commanded["motions"] == 0 and not commanded["is_within_limits"]


def test_nothing_is_said_of_commands_that_go_by_an_action_or_a_stream(process: Process) -> None:
    """Whatever the robot's description says: the server's `command` may say otherwise."""
    assert evaluate(process) == 0
    assert "commanded" not in written(process)


# ---------------------------------------------------------------- the report


def test_the_hash_is_that_of_the_policy_that_was_loaded(process: Process) -> None:
    path = Path(process.node.config.policy)
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    trials_do(process, lambda _: path.write_bytes(b"exported again") and None)
    assert evaluate(process) == 0
    assert written(process)["policy_sha256"] == expected


def compare_with(
    process: Process, monkeypatch: pytest.MonkeyPatch, outcomes: Callable[..., Any]
) -> None:
    config = process.node.config
    process.node.config = type(config)(policy=config.policy, episodes=config.episodes)
    monkeypatch.setattr(evaluator, "in_process_outcomes", outcomes)


def test_trials_are_on_the_disk_before_they_are_compared(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    def outcomes(*_: Any) -> Any:
        assert written(process)["successes"] == 2
        raise TrialError("the simulator does not start")

    compare_with(process, monkeypatch, outcomes)
    assert evaluate(process) == 1
    assert written(process)["successes"] == 2 and "in_process" not in written(process)


def test_trials_that_were_ended_by_a_signal_are_written_and_not_compared(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare_with(process, monkeypatch, lambda *_: pytest.fail("it would take minutes"))
    trials_do(process, lambda _: process.stopping.set())
    assert evaluate(process) == 1
    found = written(process)
    assert (found["episodes"], found["is_complete"]) == (1, False) and "in_process" not in found


def test_on_a_full_disk_the_log_tells_what_the_trials_gave(
    process: Process, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def write_report(*_: Any) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(evaluator, "write_report", write_report)
    assert evaluate(process) == 1
    said = capfd.readouterr().err
    assert "success 1.000" in said and "(2/2)" in said and "No space left" in said
