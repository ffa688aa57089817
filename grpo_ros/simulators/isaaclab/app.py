"""The one Isaac Lab application that a process can hold."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from grpo_ros.errors import MissingExtraError, SimulatorError
from grpo_ros.simulators.isaaclab.config import IsaacLabConfig

SELECTORS = {"newton": "newton_mjwarp", "kit": "isaacsim_physx"}
"""Backend -> Isaac Lab's name of it, which chooses among an environment's presets."""

_stack = contextlib.ExitStack()
_holder: object | None = None


def has_module(name: str) -> bool:
    """Return whether a module is installed; what it stands in may be absent too."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def require(config: IsaacLabConfig) -> None:
    """Raise MissingExtraError where Isaac Lab, or what the backend needs, is not installed."""
    for package in ("isaaclab", "isaaclab_newton"):
        if not has_module(package):
            raise MissingExtraError(
                f"simulator 'isaaclab' needs the package {package}",
                remedy="run `make isaaclab` (or make setup EXTRAS=isaaclab)",
            )
    if config.backend == "kit" and not has_module("isaacsim.simulation_app"):
        raise MissingExtraError(
            "isaaclab.backend = 'kit' needs Isaac Sim",
            remedy="install isaacsim 6.x from NVIDIA's package index, or use backend newton",
        )


@contextlib.contextmanager
def launched(config: IsaacLabConfig, holder: object, environment: Any = None) -> Iterator[Any]:
    """Start what the backend needs; give Isaac Lab's physics configuration to build with.

    Isaac Lab has one simulation context per process, so the second holder is refused. A holder
    whose building fails does not stay it.

    Args:
        config: backend and device.
        holder: who releases it.
        environment: configuration of an environment; the solver settings it has for the backend,
            plain or as a preset, are kept.

    Raises:
        MissingExtraError: Isaac Lab or Isaac Sim is not installed.
        SimulatorError: there is no such device, or another simulator of this process holds the
            context.
    """
    global _holder
    require(config)
    if config.device != "cpu" and not torch.cuda.is_available():
        raise SimulatorError(
            f"isaaclab.device = '{config.device}', and torch finds no GPU", remedy="device:=cpu"
        )
    if _holder is not None and _holder is not holder:
        raise SimulatorError(
            "this process already has an Isaac Lab simulation, and it can hold only one",
            remedy="close the other simulator, or give it a process of its own",
        )
    _quiet()
    from isaaclab.app import launch_simulation

    arguments: dict[str, Any] = {"device": config.device, "visualizer": [], "headless": True}
    if environment is None:
        physics = _physics(config)
        _stack.enter_context(launch_simulation(physics, arguments))
    else:
        if environment.sim.physics is None:
            environment.sim.physics = _physics(config)
        arguments["physics"] = SELECTORS[config.backend]
        physics = _stack.enter_context(launch_simulation(environment, arguments))
    _holder = holder
    try:
        yield physics
    except BaseException:
        release(holder)
        raise


def release(holder: object) -> None:
    """Clear the simulation context, if `holder` holds it."""
    global _holder
    if _holder is not holder:
        return
    from isaaclab.sim import SimulationContext

    SimulationContext.clear_instance()
    _holder = None


def _physics(config: IsaacLabConfig) -> Any:
    if config.backend == "kit":
        from isaaclab_physx.physics import PhysxCfg

        return PhysxCfg(enable_enhanced_determinism=True)
    from isaaclab_newton.physics import MJWarpSolverCfg, NewtonCfg

    solver = MJWarpSolverCfg(
        njmax=config.max_constraints,
        nconmax=config.max_contacts,
        iterations=config.solver_iterations,
        ls_iterations=config.line_search_iterations,
        integrator="implicitfast",
        cone="pyramidal",
    )
    return NewtonCfg(solver_cfg=solver, use_cuda_graph=config.device != "cpu")


def _quiet() -> None:
    """Leave the log to what a user can act on."""
    import warp

    warp.config.log_level = warp.LOG_ERROR
    from isaaclab.utils.timer import Timer

    Timer.enable_display_output = False
    for name in ("isaaclab", "isaaclab_newton"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(isaaclab|warp).*")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(isaaclab|newton).*")


atexit.register(_stack.close)
