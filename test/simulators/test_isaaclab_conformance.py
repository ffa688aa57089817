"""Isaac Lab on Newton passes the conformance suite, with our tasks and a user's environment."""

import pytest

from grpo_ros.errors import SimulatorError
from grpo_ros.simulators import conformance
from grpo_ros.simulators.isaaclab.config import IsaacLabConfig
from grpo_ros.simulators.measured import measure
from grpo_ros.simulators.registry import make_simulator
from grpo_ros.tasks.base import Randomisation
from grpo_ros.tasks.environment import EnvironmentConfig
from grpo_ros.tasks.pick_place import PickPlaceConfig
from grpo_ros.tasks.registry import make_task

pytest.importorskip("isaaclab", reason="Isaac Lab is not installed: make isaaclab")

BUILD_TIMEOUT_S = 600
"""The first build on a machine compiles some hundred kernels."""
pytestmark = pytest.mark.timeout(BUILD_TIMEOUT_S)


TASKS = {
    "randomised": ("pick_place", PickPlaceConfig(randomisation=Randomisation(enabled=True))),
    "insert": ("insert", None),
    "reach": ("reach", None),
    "environment": (
        "isaaclab:reach_environment:DelayedReachEnvCfg",
        EnvironmentConfig(outcome="reached", chunk_size=2),
    ),
}


@pytest.fixture(scope="module", params=TASKS.values(), ids=TASKS)
def simulators(request):
    task = make_task(*request.param)
    make = lambda num_envs: make_simulator("isaaclab", task, num_envs, IsaacLabConfig())  # noqa: E731
    with conformance.Simulators(make) as found:
        yield found


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
def test_conforms(check, simulators):
    check(simulators)


def test_measured_capabilities_are_those_that_are_claimed(simulators):
    simulator = simulators.get()
    measured = measure(simulator)
    assert measured.bit_equal_group == simulator.capabilities.bit_equal_group is True
    assert measured.exact_mid_episode == simulator.capabilities.exact_mid_episode is True
    assert measured.group_drift == measured.restore_drift == 0.0


def test_a_second_simulation_in_one_process_is_refused(simulators):
    simulators.get()
    with pytest.raises(SimulatorError, match="it can hold only one"):
        make_simulator("isaaclab", make_task("pick_place"), 4)
