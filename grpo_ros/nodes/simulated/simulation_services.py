"""The services of simulation_interfaces, the ROS standard for simulators, of a simulated robot.

get_simulator_features names what is offered. Services have the snake_case names of their types,
relative to the node's namespace: get_entities, get_entity_state, get_entities_states,
get_entity_info, get_entity_bounds, set_entity_state, get_spawnables, spawn_entity, spawn_entities,
delete_entity, reset_simulation, get_simulation_state, set_simulation_state; and where the
simulation runs freely step_simulation and the action simulate_steps.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

from simulation_interfaces import msg, srv
from simulation_interfaces.msg import SimulationState, SimulatorFeatures

from grpo_ros.deployment.simulation.entities import Entities
from grpo_ros.deployment.simulation.primitives import SCHEME
from grpo_ros.deployment.simulation.refusal import Refusal
from grpo_ros.deployment.simulation.run_state import RunState
from grpo_ros.nodes.simulated import entity_messages as convert
from grpo_ros.nodes.simulated.simulation_answers import answer_with, answering
from grpo_ros.nodes.simulated.simulation_stepping import Stepper

UNSUPPORTED = "RESULT_FEATURE_UNSUPPORTED"
STATES = {
    SimulationState.STATE_STOPPED: "stopped",
    SimulationState.STATE_PLAYING: "playing",
    SimulationState.STATE_PAUSED: "paused",
    SimulationState.STATE_QUITTING: "quitting",
}
FEATURES = (
    SimulatorFeatures.SPAWNING,
    SimulatorFeatures.DELETING,
    SimulatorFeatures.ENTITY_TAGS,
    SimulatorFeatures.ENTITY_BOUNDS,
    SimulatorFeatures.ENTITY_BOUNDS_BOX,
    SimulatorFeatures.ENTITY_CATEGORIES,
    SimulatorFeatures.SPAWNING_RESOURCE_STRING,
    SimulatorFeatures.ENTITY_STATE_GETTING,
    SimulatorFeatures.ENTITY_STATE_SETTING,
    SimulatorFeatures.ENTITY_INFO_GETTING,
    SimulatorFeatures.SPAWNABLES,
    SimulatorFeatures.SIMULATION_RESET,
    SimulatorFeatures.SIMULATION_RESET_STATE,
    SimulatorFeatures.SIMULATION_RESET_SPAWNED,
    SimulatorFeatures.SIMULATION_STATE_GETTING,
    SimulatorFeatures.SIMULATION_STATE_SETTING,
)
FREE_RUNNING_FEATURES = (
    SimulatorFeatures.SIMULATION_STATE_PAUSE,
    SimulatorFeatures.STEP_SIMULATION_SINGLE,
    SimulatorFeatures.STEP_SIMULATION_MULTIPLE,
    SimulatorFeatures.STEP_SIMULATION_ACTION,
)
CLOCK_GOES_ON = "/clock is a monotone clock of experience: it goes on, whatever is reset"


class Simulation(Protocol):
    """What the services ask of the node that simulates."""

    def reset(self) -> int:
        """Begin the episode of the next initial state; return its number."""

    def step(self) -> None:
        """Let one physics step pass, and publish what is due."""

    def show_scene(self) -> None:
        """Publish the whole state, after the scene was changed or stepped."""

    def show_bodies(self) -> None:
        """Offer what belongs to the bodies, after some were added or removed."""

    def quit(self) -> None:
        """End the node's process."""


class SimulationServices:
    """Offers simulation_interfaces on a node.

    Args:
        node: that offers them, and simulates.
        entities: of its scene.
        run_state: which the services set and the node obeys.
    """

    def __init__(self, node: Any, entities: Entities, run_state: RunState) -> None:
        self.node, self.entities, self.run_state = node, entities, run_state
        self.simulation: Simulation = node
        self.stepper = Stepper(node, run_state.check_stepping, node.step, node.show_scene)
        for kind, callback in (
            (srv.GetSimulatorFeatures, self._on_get_features),
            (srv.GetEntities, self._on_get_entities),
            (srv.GetEntityState, self._on_get_state),
            (srv.GetEntitiesStates, self._on_get_states),
            (srv.GetEntityInfo, self._on_get_info),
            (srv.GetEntityBounds, self._on_get_bounds),
            (srv.SetEntityState, self._on_set_state),
            (srv.GetSpawnables, self._on_get_spawnables),
            (srv.SpawnEntity, self._on_spawn),
            (srv.DeleteEntity, self._on_delete),
            (srv.ResetSimulation, self._on_reset),
            (srv.GetSimulationState, self._on_get_simulation_state),
            (srv.SetSimulationState, self._on_set_simulation_state),
        ):
            self._offer(kind, callback)
        self.features = [*FEATURES, *([] if run_state.lock_step else FREE_RUNNING_FEATURES)]
        if hasattr(srv, "SpawnEntities"):  # not in the first releases
            self._offer(srv.SpawnEntities, self._on_spawn_several)
            self.features.append(SimulatorFeatures.SPAWNING_ENTITIES)

    def _offer(self, kind: Any, callback: Callable[[Any, Any], None]) -> None:
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
        self.node.create_service(kind, name, answering(self.node, name, callback))

    # ---------------------------------------------------------------- questions

    def _on_get_features(self, _: Any, response: Any) -> None:
        response.features.features = self.features
        response.features.spawn_formats = [SCHEME]
        task = self.entities.task
        response.features.custom_info = (
            f"grpo_ros, task '{task.name}'; world frame '{task.robot.base_frame}'; {CLOCK_GOES_ON}"
        )

    def _on_get_entities(self, request: Any, response: Any) -> None:
        found = self.entities.select(convert.filters_of(request.filters))
        response.entities = [entity.name for entity in found]
        answer_with(response, None)

    def _on_get_state(self, request: Any, response: Any) -> None:
        response.state = self._state(request.entity)
        answer_with(response, None)

    def _on_get_states(self, request: Any, response: Any) -> None:
        self._on_get_entities(request, response)
        response.states = [self._state(name) for name in response.entities]

    def _on_get_info(self, request: Any, response: Any) -> None:
        response.info = convert.info_of(self.entities.find(request.entity))
        answer_with(response, None)

    def _on_get_bounds(self, request: Any, response: Any) -> None:
        body = self.entities.find(request.entity).body
        if body is None:
            raise Refusal(
                "RESULT_OPERATION_FAILED",
                f"bounds of '{request.entity}' are not known",
                expected="a body, not a part of the robot",
            )
        response.bounds = convert.bounds_of(body)
        answer_with(response, None)

    def _on_get_spawnables(self, request: Any, response: Any) -> None:
        response.spawnables = list(convert.spawnables())
        unknown = ", ".join(request.sources)
        answer_with(response, None, unknown and f"sources that are not known: {unknown}")

    def _on_get_simulation_state(self, _: Any, response: Any) -> None:
        names = {name: code for code, name in STATES.items()}
        response.state.state = names[self.run_state.now]
        answer_with(response, None)

    def _state(self, name: str) -> Any:
        pose, velocity = self.entities.state(name)
        frame, stamp = self.entities.robot.base_frame, self.entities.sim.time_ns
        return convert.state_message(stamp, frame, pose, velocity)

    # ---------------------------------------------------------------- the scene

    def _on_set_state(self, request: Any, response: Any) -> None:
        state = request.state
        self.entities.set_state(
            request.entity,
            convert.pose_of(state.pose),
            convert.velocity_of(state.twist),
            state.header.frame_id,
            convert.velocity_of(state.acceleration),
        )
        self.simulation.show_scene()
        answer_with(response, None)

    def _on_spawn(self, request: Any, response: Any) -> None:
        spawn = convert.spawn_of(request, request.uri, request.resource_string)
        (answer,) = self.entities.spawn([spawn])
        self._answer_spawn(response, answer)
        self._show_bodies()

    def _on_spawn_several(self, request: Any, response: Any) -> None:
        spawns = [
            convert.spawn_of(r, r.entity_resource.uri, r.entity_resource.resource_string)
            for r in request.spawn_requests
        ]
        answers = self.entities.spawn(spawns)
        response.results = [msg.SpawnResult() for _ in answers]
        for result, answer in zip(response.results, answers, strict=True):
            self._answer_spawn(result, answer)
        num_failed = sum(isinstance(answer, Refusal) for answer in answers)
        self._show_bodies()
        if num_failed:
            what = f"{num_failed} of {len(answers)} were not spawned; see results"
            raise Refusal("ENTITIES_SPAWN_FAILED", what)
        answer_with(response, None)

    @staticmethod
    def _answer_spawn(response: Any, answer: str | Refusal) -> None:
        if isinstance(answer, Refusal):
            answer_with(response, answer)
        else:
            response.entity_name = answer
            answer_with(response, None)

    def _on_delete(self, request: Any, response: Any) -> None:
        self.entities.delete(request.entity)
        self._show_bodies()
        answer_with(response, None)

    def _show_bodies(self) -> None:
        self.simulation.show_bodies()
        self.simulation.show_scene()

    # ---------------------------------------------------------------- the simulation

    def _on_reset(self, request: Any, response: Any) -> None:
        is_all = request.scope in (request.SCOPE_DEFAULT, request.SCOPE_ALL)
        known = request.SCOPE_TIME | request.SCOPE_STATE | request.SCOPE_SPAWNED
        if not is_all and request.scope & ~known:
            raise Refusal(UNSUPPORTED, f"scope {request.scope}", expected=f"bits of {known}")
        if not is_all and request.scope & request.SCOPE_TIME:
            raise Refusal(
                UNSUPPORTED,
                f"SCOPE_TIME: {CLOCK_GOES_ON}",
                expected="SCOPE_STATE, SCOPE_SPAWNED, both, or SCOPE_ALL for all but time",
            )
        has_state = is_all or bool(request.scope & request.SCOPE_STATE)
        self.stepper.stop("the simulation was reset")
        if is_all or request.scope & request.SCOPE_SPAWNED:
            self.entities.delete_added(ends_episode=has_state)
            self.simulation.show_bodies()
        if has_state:
            self.simulation.reset()
        else:
            self.simulation.show_scene()
        answer_with(response, None, CLOCK_GOES_ON if is_all else "")

    def _on_set_simulation_state(self, request: Any, response: Any) -> None:
        target = STATES.get(request.state.state, f"state {request.state.state}")
        self.run_state.check(target)
        self.stepper.stop(f"the simulation was set to '{target}'")
        self.run_state.now = target
        if target == "stopped":
            self.entities.delete_added(ends_episode=True)
            self.simulation.show_bodies()
            self.simulation.reset()
        elif target == "quitting":
            self.simulation.quit()
        answer_with(response, None)
