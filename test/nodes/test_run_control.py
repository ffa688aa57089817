"""What a run is watched by in lock step, and who hears of its end."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

pytest.importorskip("rclpy")
sys.path.append(str(Path(__file__).resolve().parents[1] / "deployment"))

from deployment_fakes import (  # noqa: E402
    ARM,
    FINGER,
    PERIOD_NS,
    ROBOT,
    AddingController,
    home,
    make_contract,
)

from grpo_ros.deployment.policy_runner import PolicyRunner  # noqa: E402
from grpo_ros.deployment.runner_config import RunnerConfig  # noqa: E402
from grpo_ros.deployment.safety.faults import FaultConfig  # noqa: E402
from grpo_ros.errors import ConfigurationError  # noqa: E402
from grpo_ros.nodes.serving import run_control  # noqa: E402
from grpo_ros.nodes.serving.policy_config import (  # noqa: E402
    PolicyServerConfig,
    check_config,
    runner_settings,
)
from grpo_ros.nodes.serving.run_control import RunControl  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(60)]
SECOND = 1_000_000_000


def stay(obs: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    return np.zeros((1, 4, 8), dtype=np.float32)


def lock_step_control(config: RunnerConfig) -> RunControl:
    """Return a control whose node, output and record are stand-ins."""
    runner = PolicyRunner(make_contract(), stay, ROBOT, AddingController(), config)
    settings: Any = SimpleNamespace(lock_step=True, dry_run=False, judge=False)
    return RunControl(MagicMock(), settings, runner, MagicMock(), MagicMock(), MagicMock())


def observe(control: RunControl, stamp_ns: int) -> None:
    """Give it all inputs of one stamp."""
    buffer = control.runner.buffer
    buffer.put_joint_state(stamp_ns, (*ARM, FINGER), home(), np.zeros(8))
    buffer.put_pose(stamp_ns, "cube", "base", (0.5, 0.0, 0.02), (0.0, 0.0, 0.0, 1.0))
    control.on_input()


@pytest.mark.parametrize("first_ns", [SECOND, 1_700_000_000 * SECOND])
def test_in_lock_step_an_enable_signal_is_as_old_as_its_arrival(
    first_ns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: its age was taken from the inputs' stamp: it never grew old, or always was."""
    steady = SimpleNamespace(now_s=5_000.0)
    monkeypatch.setattr(run_control, "time", SimpleNamespace(monotonic=lambda: steady.now_s))
    faults = FaultConfig(enable_topic="enable", enable_timeout_s=0.25)
    control = lock_step_control(RunnerConfig(faults=faults))
    control.runner.faults.put_enable(True, steady.now_s)
    control.start()
    observe(control, first_ns)
    assert control.is_running, control.runner.reason
    steady.now_s += 0.3
    observe(control, first_ns + PERIOD_NS)
    assert control.runner.reason == "the enable signal is 0.30 s old"


def test_in_lock_step_inputs_that_wait_for_each_other_do_not_grow_old() -> None:
    config = PolicyServerConfig(runner=RunnerConfig(watch_arrivals=True), lock_step=True)
    assert not runner_settings(config).watch_arrivals


def test_who_fails_as_a_run_ends_keeps_nobody_from_hearing_of_it() -> None:
    """Regression: what came after was skipped, the last motion of a stream among it."""
    control, ended = lock_step_control(RunnerConfig()), list[str]()

    def fail(_: str) -> None:
        raise RuntimeError("for a test")

    control.record.end.side_effect = OSError("the disk is full")  # type: ignore[attr-defined]
    control.after_run += [fail, ended.append]
    control.start()
    control.halt("stopped on request")
    assert ended == ["stopped on request"] and not control.is_running
    assert control.node.failure == "after a run: RuntimeError: for a test"


def test_hardware_in_simulated_time_is_refused() -> None:
    config = PolicyServerConfig(policy="policy.onnx", hardware=True)
    check_config(config, is_simulated=False)
    with pytest.raises(ConfigurationError, match=r"use_sim_time with hardware.*set use_sim_time"):
        check_config(config, is_simulated=True)


def test_only_where_nothing_is_commanded_chunks_may_begin_at_what_is_measured() -> None:
    follows = RunnerConfig(follow_measured=True)
    check_config(PolicyServerConfig("policy.onnx", dry_run=True, runner=follows), False)
    with pytest.raises(ConfigurationError, match="follow_measured without dry_run"):
        check_config(PolicyServerConfig("policy.onnx", runner=follows), False)
