"""What a driver says about its robot is heard, however it says it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy")

from deploy_helpers import running_client  # noqa: E402
from played_robot import until  # noqa: E402
from std_msgs.msg import Bool  # noqa: E402

from grpo_ros.deployment.safety.faults import FaultConfig, FaultWatch  # noqa: E402
from grpo_ros.nodes.serving.fault_inputs import FaultInputs  # noqa: E402
from grpo_ros.nodes.shared import qos  # noqa: E402
from grpo_ros.robots.robot import Robot, load_robot  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(60)]
UR5E = load_robot("ur5e")


def repeating(folder: Path) -> Robot:
    """Return a robot whose driver repeats its mode."""
    shutil.copytree(UR5E.urdf_path.parent, folder)
    tree = yaml.safe_load((folder / "robot.yaml").read_text())
    tree["safety"]["robot_mode"]["latched"] = False
    (folder / "robot.yaml").write_text(yaml.safe_dump(tree))
    return load_robot(folder)


@pytest.mark.parametrize("is_latched", [True, False])
def test_a_mode_is_heard_that_was_said_once_before_or_is_repeated_best_effort(
    is_latched: bool, tmp_path: Path
) -> None:
    """UR's driver says that its program runs when that changes, and not again."""
    robot = UR5E if is_latched else repeating(tmp_path / "robot")
    mode = robot.safety.robot_mode
    assert mode is not None
    watch = FaultWatch(robot, FaultConfig())
    with running_client() as client:
        profile = qos.LATCHED if is_latched else qos.SENSOR
        driver = client.node.create_publisher(Bool, mode.topic, profile)
        driver.publish(Bool(data=True))
        assert watch.problem(0.0) is not None
        FaultInputs(client.node, robot, watch.config, watch, lambda: None)

        def is_heard() -> bool:
            if not is_latched:
                driver.publish(Bool(data=True))
            return watch.problem(0.0) is None

        until(is_heard, "the mode", 5.0)
