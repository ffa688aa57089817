"""The one Isaac Lab application that a process can hold."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import logging
import os
import warnings
from typing import Any

from grpo_ros.errors import MissingExtraError, SimulatorError
from grpo_ros.simulators.isaaclab.config import IsaacLabConfig

_stack = contextlib.ExitStack()
_holder: object | None = None


def require() -> None:
    """Raise MissingExtraError where Isaac Lab is not installed."""
    for package in ("isaaclab", "isaaclab_newton"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(
                f"simulator 'isaaclab' needs the package {package}",
                remedy="run `make isaaclab` (or make setup EXTRAS=isaaclab)",
            )


def launch(config: IsaacLabConfig, holder: object) -> Any:
    """Start what the backend needs; return Isaac Lab's physics configuration.

    Isaac Lab has one simulation context per process, so the second holder is refused.

    Raises:
        MissingExtraError: Isaac Lab or Isaac Sim is not installed.
        SimulatorError: another simulator of this process holds the context.
    """
    global _holder
    require()
    if _holder is not None and _holder is not holder:
        raise SimulatorError(
            "this process already has an Isaac Lab simulation, and it can hold only one",
            remedy="close the other simulator, or give it a process of its own",
        )
    _quiet()
    physics = _physics(config)
    from isaaclab.app import launch_simulation

    launched = {"device": config.device, "visualizer": [], "headless": True}
    _stack.enter_context(launch_simulation(physics, launched))
    _holder = holder
    return physics


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
        if importlib.util.find_spec("isaacsim.simulation_app") is None:
            raise MissingExtraError(
                "isaaclab.backend = 'kit' needs Isaac Sim",
                remedy="install isaacsim 6.x from NVIDIA's package index, or use backend newton",
            )
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
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    import warp

    warp.config.quiet = True
    for name in ("isaaclab", "isaaclab_newton", "isaaclab.utils.timer"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(isaaclab|warp).*")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(isaaclab|newton).*")


atexit.register(_stack.close)
