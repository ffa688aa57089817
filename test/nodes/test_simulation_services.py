"""simulation_interfaces on the simulator bridge, over real ROS, with every error's code."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("simulation_interfaces")

from deploy_helpers import Client, NodeProcess, running_client  # noqa: E402
from geometry_msgs.msg import PoseStamped, Vector3  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from simulation_interfaces import srv  # noqa: E402
from simulation_interfaces.action import SimulateSteps  # noqa: E402
from simulation_interfaces.msg import (  # noqa: E402
    Bounds,
    EntityCategory,
    EntityState,
    Result,
    SimulationState,
    SimulatorFeatures,
    TagsFilter,
)
from simulation_interfaces.msg import SpawnEntity as SpawnRequest  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from grpo_ros.nodes.shared import messages, qos  # noqa: E402
from grpo_ros.nodes.simulated.simulation_services import FREE_RUNNING_FEATURES  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(120)]
OK, FAILED = Result.RESULT_OK, Result.RESULT_OPERATION_FAILED
NOT_FOUND, UNSUPPORTED = Result.RESULT_NOT_FOUND, Result.RESULT_FEATURE_UNSUPPORTED
PLAYING, PAUSED = SimulationState.STATE_PLAYING, SimulationState.STATE_PAUSED
STOPPED, QUITTING = SimulationState.STATE_STOPPED, SimulationState.STATE_QUITTING
STEP_NS = 10_000_000
BOX = "primitive://box?size=0.04,0.04,0.08"


class Simulator:
    """Calls the bridge's services by their types."""

    def __init__(self, client: Client, namespace: str = "") -> None:
        self.client, self.namespace = client, namespace

    def call(self, kind: Any, **fields: Any) -> Any:
        """Call the service of a type; fields of the request are given by name."""
        name = "".join(f"_{c.lower()}" if c.isupper() else c for c in kind.__name__)[1:]
        return self.client.call(kind, self.namespace + name, kind.Request(**fields))

    def set_state(self, state: int) -> Any:
        return self.call(srv.SetSimulationState, state=SimulationState(state=state))

    def state(self) -> int:
        return int(self.call(srv.GetSimulationState).state.state)

    def entity(self, name: str) -> EntityState:
        response = self.call(srv.GetEntityState, entity=name)
        assert response.result.result == OK, response.result.error_message
        return response.state

    def now_ns(self) -> int:
        """Return the simulated time, as an entity's stamp."""
        return messages.to_ns(self.entity("cube").header.stamp)

    def joints(self) -> list[float]:
        """Return the joint positions that were published with the present time."""
        now = self.now_ns()
        message = self.client.wait_for(
            "joint_states", lambda m: messages.to_ns(m.header.stamp) == now
        )
        return list(message.position)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with running_client() as running:
        yield running


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, NodeProcess]]:
    """Start a bridge that runs freely and one in lock step, both at once."""
    logs = tmp_path_factory.mktemp("bridges")
    started = {
        namespace: NodeProcess(
            "simulator_bridge",
            logs / f"{name}.log",
            namespace=namespace,
            lock_step=name == "locked",
        )
        for name, namespace in (("free", "/"), ("locked", "/locked"))
    }
    yield started
    for process in started.values():
        assert process.stop() == 0, process.output
        assert "Traceback" not in process.output


@pytest.fixture(scope="module")
def bridge(client: Client, processes: dict[str, NodeProcess]) -> NodeProcess:
    client.call(Trigger, "simulator_bridge/outcome")
    client.listen(JointState, "joint_states", qos.STATE)
    client.listen(Clock, "/clock", qos.CLOCK)
    return processes["/"]


@pytest.fixture
def simulator(client: Client, bridge: NodeProcess) -> Simulator:
    """Return a paused simulation at the start of an episode, nothing spawned."""
    simulator = Simulator(client)
    assert simulator.call(srv.ResetSimulation).result.result == OK
    simulator.set_state(PAUSED)
    assert simulator.state() == PAUSED
    return simulator


def test_features_are_those_that_are_offered(simulator: Simulator) -> None:
    features = simulator.call(srv.GetSimulatorFeatures).features
    assert {*FREE_RUNNING_FEATURES, SimulatorFeatures.SPAWNING_ENTITIES} <= set(features.features)
    for missing in ("SIMULATION_RESET_TIME", "WORLD_LOADING", "ENTITY_BOUNDS_CONVEX"):
        assert getattr(SimulatorFeatures, missing) not in features.features
    assert features.spawn_formats == ["primitive"]
    assert "pick_place" in features.custom_info


def test_entities_are_found_by_name_category_tag_and_bounds(simulator: Simulator) -> None:
    def found(**filters: Any) -> list[str]:
        request = srv.GetEntities.Request()
        for name, value in filters.items():
            setattr(request.filters, name, value)
        response = simulator.call(srv.GetEntities, filters=request.filters)
        assert response.result.result == OK
        return list(response.entities)

    assert found() == ["franka_fr3", "fr3_hand_tcp", "table", "cube", "goal"]
    assert found(filter="^(cube|goal)$") == ["cube", "goal"]
    robots = [EntityCategory(category=EntityCategory.CATEGORY_ROBOT)]
    assert found(categories=robots) == ["franka_fr3", "fr3_hand_tcp"]
    tags = TagsFilter(tags=["task", "dynamic"], filter_mode=TagsFilter.FILTER_MODE_ALL)
    assert found(tags=tags) == ["cube"]
    at = simulator.entity("cube").pose.position
    centre, radius = Vector3(x=at.x, y=at.y, z=at.z + 0.05), Vector3(x=0.04)
    assert found(bounds=Bounds(type=Bounds.TYPE_SPHERE, points=[centre, radius])) == ["cube"]
    corners = [Vector3(x=5.0, y=5.0, z=5.0), Vector3(x=-5.0, y=-5.0, z=0.001)]
    box = Bounds(type=Bounds.TYPE_BOX, points=corners)
    assert found(bounds=box, filter="e$") == ["cube"]

    request = srv.GetEntitiesStates.Request()
    request.filters.filter = "cube"
    response = simulator.call(srv.GetEntitiesStates, filters=request.filters)
    assert response.entities == ["cube"] and response.states == [simulator.entity("cube")]
    for kind in (srv.GetEntities, srv.GetEntitiesStates):
        request.filters.bounds = Bounds(type=Bounds.TYPE_CONVEX_HULL, points=[centre] * 4)
        response = simulator.call(kind, filters=request.filters)
        assert response.result.result == UNSUPPORTED and "type 2" in response.result.error_message
        request.filters.bounds = Bounds(type=Bounds.TYPE_BOX, points=[centre])
        assert simulator.call(kind, filters=request.filters).result.result == FAILED


def test_an_entity_tells_its_state_info_and_bounds_or_its_nearest_name(
    simulator: Simulator,
) -> None:
    cube = simulator.entity("cube")
    assert cube.header.frame_id == "base" and messages.to_ns(cube.header.stamp) > 0
    assert 0.2 < cube.pose.position.x < 0.8
    info = simulator.call(srv.GetEntityInfo, entity="goal").info
    assert info.category.category == EntityCategory.CATEGORY_STATIC_OBJECT
    assert info.tags == ["cylinder", "kinematic", "task", "visual"]
    bounds = simulator.call(srv.GetEntityBounds, entity="cube").bounds
    assert bounds.type == Bounds.TYPE_BOX and bounds.points[0].x == -bounds.points[1].x == 0.02
    assert simulator.call(srv.GetEntityBounds, entity="franka_fr3").result.result == FAILED
    kinds = (srv.GetEntityState, srv.GetEntityInfo, srv.GetEntityBounds, srv.SetEntityState)
    for kind in (*kinds, srv.DeleteEntity):
        result = simulator.call(kind, entity="gaol").result
        assert result.result == NOT_FOUND and "did you mean 'goal'" in result.error_message


def test_steps_are_exact_and_taken_while_paused_only(simulator: Simulator) -> None:
    before = simulator.now_ns()
    assert simulator.now_ns() == before
    for steps in (0, 1, 7):
        assert simulator.call(srv.StepSimulation, steps=steps).result.result == OK
    assert simulator.now_ns() == before + 8 * STEP_NS
    client = simulator.client
    client.wait_for("/clock", lambda m: messages.to_ns(m.clock) == before + 8 * STEP_NS)
    client.wait_for(
        "joint_states", lambda m: messages.to_ns(m.header.stamp) == before + 8 * STEP_NS
    )
    assert simulator.set_state(PLAYING).result.result == OK
    result = simulator.call(srv.StepSimulation, steps=1).result
    assert result.result == FAILED and "'playing'; expected 'paused'" in result.error_message
    client.wait_for("/clock", lambda m: messages.to_ns(m.clock) > before + 12 * STEP_NS)


def test_simulated_steps_report_each_and_can_be_cancelled(simulator: Simulator) -> None:
    client, before = simulator.client, simulator.now_ns()
    action = ActionClient(client.node, SimulateSteps, "simulate_steps")
    assert action.wait_for_server(30.0)

    def started(steps: int) -> tuple[Any, list[Any]]:
        """Send a goal; return its handle and its feedback, once some of that came."""
        heard: list[Any] = []
        has_begun = threading.Event()

        def on_feedback(message: Any) -> None:
            heard.append((message.feedback.completed_steps, message.feedback.remaining_steps))
            if len(heard) == 8:
                has_begun.set()

        goal = SimulateSteps.Goal(steps=steps)
        handle = client.join(action.send_goal_async(goal, feedback_callback=on_feedback))
        assert has_begun.wait(10.0)
        return handle, heard

    handle, heard = started(8)
    assert client.join(handle.get_result_async()).result.result.result == OK
    assert heard == [(i, 8 - i) for i in range(1, 9)]
    assert simulator.now_ns() == before + 8 * STEP_NS

    endless, _ = started(10**12)
    busy = simulator.call(srv.StepSimulation, steps=1).result
    assert busy.result == FAILED and "another request" in busy.error_message
    client.join(endless.cancel_goal_async())
    response = client.join(endless.get_result_async())
    assert response.result.result.result == FAILED
    assert "cancelled after" in response.result.result.error_message
    stopped_at = simulator.now_ns()
    assert before + 16 * STEP_NS <= stopped_at == simulator.now_ns()

    endless, _ = started(10**12)
    assert simulator.set_state(PLAYING).result.result == OK
    response = client.join(endless.get_result_async())
    assert "set to 'playing' after" in response.result.result.error_message
    refused = client.join(action.send_goal_async(SimulateSteps.Goal(steps=3)))
    result = client.join(refused.get_result_async()).result.result
    assert result.result == FAILED and "expected 'paused'" in result.error_message
    action.destroy()


def test_states_are_set_and_a_stop_resets(simulator: Simulator) -> None:
    codes = srv.SetSimulationState.Response
    assert simulator.set_state(PAUSED).result.result == codes.ALREADY_IN_TARGET_STATE
    for unreachable in (SimulationState.STATE_NO_WORLD, 77):
        assert simulator.set_state(unreachable).result.result == codes.INCORRECT_TRANSITION
    episode = episode_of(simulator)
    spawn(simulator, "brick")
    assert simulator.set_state(STOPPED).result.result == OK
    assert simulator.state() == STOPPED and episode_of(simulator) == episode + 1
    assert "brick" not in simulator.call(srv.GetEntities).entities
    before = simulator.now_ns()
    assert simulator.call(srv.StepSimulation, steps=1).result.result == FAILED
    assert simulator.now_ns() == before
    for state in (PAUSED, PLAYING, PAUSED):
        assert simulator.set_state(state).result.result == OK and simulator.state() == state


def test_a_body_is_set_and_moves_on_from_there(simulator: Simulator) -> None:
    state = EntityState()
    state.header.frame_id = "goal"
    state.pose.position.z, state.twist.angular.z, state.twist.linear.x = 0.5, 2.0, 0.3
    assert simulator.call(srv.SetEntityState, entity="cube", state=state).result.result == OK
    goal, cube = simulator.entity("goal"), simulator.entity("cube")
    assert cube.pose.position.z == pytest.approx(goal.pose.position.z + 0.5)
    assert cube.twist == state.twist
    simulator.call(srv.StepSimulation, steps=10)
    moved = simulator.entity("cube")
    assert moved.pose.position.x - cube.pose.position.x == pytest.approx(0.03, abs=1e-3)
    assert moved.pose.position.z < cube.pose.position.z
    assert 2.0 * math.asin(moved.pose.orientation.z) == pytest.approx(0.2, abs=1e-3)

    def refused(entity: str) -> int:
        return int(simulator.call(srv.SetEntityState, entity=entity, state=state).result.result)

    assert [refused(name) for name in ("goal", "table", "franka_fr3")] == [FAILED] * 3
    state.header.frame_id = "nowhere"
    assert refused("cube") == NOT_FOUND
    state.header.frame_id, state.pose.orientation.w = "", 0.0
    assert refused("cube") == srv.SetEntityState.Response.INVALID_POSE


def test_primitives_are_spawned_seen_and_deleted(simulator: Simulator) -> None:
    spawnables = simulator.call(srv.GetSpawnables, sources=["file:///x"])
    assert "file:///x" in spawnables.result.error_message and spawnables.result.result == OK
    joints = simulator.joints()
    for i, item in enumerate(spawnables.spawnables):
        assert spawn(simulator, f"body{i}", uri=item.uri, y=-0.4 + 0.1 * i) == f"body{i}"
    simulator.client.listen(PoseStamped, "objects/body0/pose", qos.STATE)
    simulator.call(srv.StepSimulation, steps=5)
    simulator.client.wait_for("objects/body0/pose")
    assert simulator.joints() == pytest.approx(joints, abs=5e-3)
    assert spawn(simulator, "body0", allow_renaming=True) == "body0_0"
    codes = srv.SpawnEntity.Response

    def refused(**fields: Any) -> int:
        return int(simulator.call(srv.SpawnEntity, **fields).result.result)

    assert refused(name="cube", uri=BOX) == codes.NAME_NOT_UNIQUE
    assert refused(name="", uri=BOX) == codes.NAME_INVALID
    assert refused(name="x") == codes.NO_RESOURCE
    assert refused(name="x", resource_string="<sdf/>") == codes.UNSUPPORTED_FORMAT
    assert refused(name="x", uri="primitive://box?size=1") == codes.RESOURCE_PARSE_ERROR
    assert refused(name="x", uri=BOX, entity_namespace="1//") == codes.NAMESPACE_INVALID
    far = PoseStamped()
    far.pose.position.x = 1e4
    assert refused(name="x", uri=BOX, initial_pose=far) == codes.INVALID_POSE
    assert simulator.call(srv.DeleteEntity, entity="body1").result.result == OK
    result = simulator.call(srv.DeleteEntity, entity="cube").result
    assert result.result == FAILED and "belongs to task" in result.error_message
    assert simulator.call(srv.DeleteEntity, entity="body1").result.result == NOT_FOUND


def test_several_are_spawned_at_once_and_each_is_answered(simulator: Simulator) -> None:
    requests = [SpawnRequest(name=name) for name in ("first", "cube", "second")]
    for i, request in enumerate(requests):
        request.entity_resource.resource_string = BOX
        request.initial_pose.pose.position.y = 0.3 + 0.1 * i
        request.initial_pose.pose.position.z = 0.1
    response = simulator.call(srv.SpawnEntities, spawn_requests=requests)
    assert response.result.result == srv.SpawnEntities.Response.ENTITIES_SPAWN_FAILED
    assert [r.entity_name for r in response.results] == ["first", "", "second"]
    assert [r.result.result for r in response.results] == [OK, 101, OK]


def test_scopes_reset_what_they_say_and_time_goes_on(simulator: Simulator) -> None:
    scopes = srv.ResetSimulation.Request
    spawn(simulator, "brick", z=0.5)
    simulator.call(srv.StepSimulation, steps=5)
    before, episode = simulator.now_ns(), episode_of(simulator)
    result = simulator.call(srv.ResetSimulation, scope=scopes.SCOPE_TIME).result
    assert result.result == UNSUPPORTED and "monotone" in result.error_message
    assert simulator.call(srv.ResetSimulation, scope=64).result.result == UNSUPPORTED
    assert episode_of(simulator) == episode

    assert simulator.call(srv.ResetSimulation, scope=scopes.SCOPE_STATE).result.result == OK
    assert episode_of(simulator) == episode + 1
    assert simulator.entity("brick").pose.position.z == pytest.approx(0.5)
    assert simulator.call(srv.ResetSimulation, scope=scopes.SCOPE_SPAWNED).result.result == OK
    assert "brick" not in simulator.call(srv.GetEntities).entities
    assert episode_of(simulator) == episode + 1
    spawn(simulator, "brick")
    result = simulator.call(srv.ResetSimulation, scope=scopes.SCOPE_ALL).result
    assert result.result == OK and "goes on" in result.error_message
    assert "brick" not in simulator.call(srv.GetEntities).entities
    assert episode_of(simulator) == episode + 2 and simulator.now_ns() > before


def test_lock_step_refuses_what_would_pass_time_and_quits_cleanly(
    client: Client, processes: dict[str, NodeProcess]
) -> None:
    locked = Simulator(client, "locked/")
    features = locked.call(srv.GetSimulatorFeatures).features.features
    assert not set(FREE_RUNNING_FEATURES) & set(features)
    assert spawn(locked, "brick") == "brick"
    assert client.call(Trigger, "locked/simulator_bridge/reset").success
    result = locked.call(srv.StepSimulation, steps=1).result
    assert result.result == FAILED and "lock step" in result.error_message
    codes = srv.SetSimulationState.Response
    assert locked.set_state(PAUSED).result.result == codes.STATE_TRANSITION_ERROR
    for result in (
        locked.call(srv.DeleteEntity, entity="brick").result,
        locked.call(srv.SpawnEntity, name="other", uri=BOX).result,
        locked.call(srv.SetEntityState, entity="cube").result,
    ):
        assert result.result == Result.RESULT_INCORRECT_STATE
        assert "lock step, in episode" in result.error_message
    assert locked.call(srv.ResetSimulation).result.result == OK
    assert "brick" not in locked.call(srv.GetEntities).entities
    assert locked.set_state(QUITTING).result.result == OK
    process = processes["/locked"]
    assert process.wait() == 0, process.output


def spawn(
    simulator: Simulator, name: str, uri: str = BOX, y: float = 0.4, z: float = 0.2, **fields: Any
) -> str:
    """Spawn a body aside of the arm and return the name that it got."""
    pose = PoseStamped()
    pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = 0.3, y, z
    response = simulator.call(srv.SpawnEntity, name=name, uri=uri, initial_pose=pose, **fields)
    assert response.result.result == OK, response.result.error_message
    return str(response.entity_name)


def episode_of(simulator: Simulator) -> int:
    """Return the number of the bridge's episode."""
    outcome = simulator.client.call(Trigger, "simulator_bridge/outcome")
    return int(json.loads(outcome.message)["episode"])
