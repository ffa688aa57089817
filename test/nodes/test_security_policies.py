"""config/security: exactly what our nodes do, and enough for them where DDS enforces it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

from ament_index_python.packages import get_package_prefix  # noqa: E402
from deploy_helpers import (  # noqa: E402
    ENVIRONMENT,
    environment,
    export_untrained,
    running_client,
)
from keystore import OPENSSL, make_keystore  # noqa: E402
from secured_setups import deployment, settled, training  # noqa: E402

from grpo_ros.errors import ConfigurationError  # noqa: E402
from grpo_ros.nodes.security import Policy, read_policy, to_xml  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(300)]
POLICIES = Path(__file__).resolve().parents[2] / "config" / "security"
CYCLONE = "rmw_cyclonedds_cpp"
STRANGER = """
import sys, rclpy
from rclpy.node import Node
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory
rclpy.init(args=["--ros-args", *sys.argv[1:]])
node = Node("evaluator", start_parameter_services=False)
try:
    node.create_publisher(JointTrajectory, "/fr3_arm_controller/joint_trajectory", 1)
    print("may publish")
except Exception as problem:
    print("may not publish:", problem)
client = node.create_client(Trigger, "/policy_server/start")
print("finds the server" if client.wait_for_service(5.0) else "finds nobody")
"""


def difference(seen: Policy, written: Policy) -> dict[str, Any]:
    """Return what a policy lacks, and what it has without need."""
    found = {}
    for enclave in seen.keys() | written.keys():
        for node in seen.get(enclave, {}).keys() | written.get(enclave, {}).keys():
            does = seen.get(enclave, {}).get(node, frozenset())
            may = written.get(enclave, {}).get(node, frozenset())
            if does != may:
                found[node] = {"missing": sorted(does - may), "superfluous": sorted(may - does)}
    return found


def test_the_training_policy_is_what_the_nodes_do(tmp_path: Path) -> None:
    with running_client() as client, training(tmp_path, is_separate=True) as nodes:
        seen = settled(client.node, nodes, "/joint_states")
    assert difference(seen, read_policy(POLICIES / "training.xml")) == {}


def test_the_deployment_policy_is_what_the_nodes_do(tmp_path: Path) -> None:
    policy = export_untrained(tmp_path / "policy.onnx")
    with running_client() as client, deployment(tmp_path, policy, lock_step=False) as nodes:
        seen = settled(client.node, nodes, "/policy_server/predicted_chunk")
    assert difference(seen, read_policy(POLICIES / "deployment.xml")) == {}


@pytest.fixture
def enforced(tmp_path: Path) -> dict[str, str]:
    """An environment in which a DDS that can do so enforces the deployment's policy."""
    try:
        library = Path(get_package_prefix("rmw_cyclonedds_cpp"), "lib", "libdds_security_auth.so")
    except LookupError:
        prefix = os.environ.get("AMENT_PREFIX_PATH", "").split(":")[-1]
        library = Path(prefix, "lib", "libdds_security_auth.so")
    if OPENSSL is None or not library.exists():
        pytest.skip("needs openssl, and Cyclone DDS with its security plug-ins")
    keys = make_keystore(tmp_path / "keys", POLICIES / "deployment.xml")
    return {
        "RMW_IMPLEMENTATION": CYCLONE,
        "ROS_SECURITY_KEYSTORE": str(keys),
        "ROS_SECURITY_ENABLE": "true",
        "ROS_SECURITY_STRATEGY": "Enforce",
    }


def stranger(*arguments: str, **more: str) -> str:
    """Return what a process of somebody else could do."""
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, *arguments],
        env={**os.environ, **ENVIRONMENT, **more},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout + done.stderr


def test_the_deployment_runs_where_dds_enforces_its_policy_and_nobody_else_gets_in(
    tmp_path: Path, enforced: dict[str, str]
) -> None:
    policy = export_untrained(tmp_path / "policy.onnx")
    with environment(enforced), deployment(tmp_path, policy, episodes=3) as nodes:
        assert nodes[-1].wait(200.0) == 0, "\n".join(node.output for node in nodes)
        outside = stranger(ROS_SECURITY_ENABLE="false")
        within = stranger("--enclave", "/grpo_ros/evaluator")
    assert "finds nobody" in outside, outside
    assert "may not publish" in within and "finds the server" in within, within
    assert " 0 lost" in nodes[0].output, nodes[0].output


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('version="0.2.0"', 'version="0.1.0"'),
        ("ALLOW", "DENY"),
        ("publish=", "publsh="),
        ("<topic>~/status</topic>", "<topic></topic>"),
        ("<service>~/start</service>", "<topic>~/start</topic>"),
        ("</policy>", ""),
    ],
)
def test_a_policy_of_another_form_is_refused(tmp_path: Path, old: str, new: str) -> None:
    text = (POLICIES / "deployment.xml").read_text()
    assert old in text
    (tmp_path / "policy.xml").write_text(text.replace(old, new))
    with pytest.raises(ConfigurationError, match=r"policy\.xml"):
        read_policy(tmp_path / "policy.xml")


def test_names_are_written_private_in_full_or_below_the_namespace(tmp_path: Path) -> None:
    names = ("/cell/server/status", "/cell/joints", "/tf", "/other/topic")
    rights = frozenset(("topics", "publish", name) for name in names)
    policy: Policy = {"/grpo_ros/server": {"/cell/server": rights}}
    text = to_xml(policy)
    for name in ("~/status", "joints", "/tf", "/other/topic"):
        assert f"<topic>{name}</topic>" in text
    (tmp_path / "policy.xml").write_text(text)
    assert read_policy(tmp_path / "policy.xml") == policy
