"""The safety gate: a million hostile steps, and what an honest one costs."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator

import numpy as np
import torch

from grpo_ros.deployment.safety.curve import Array, Curve
from grpo_ros.deployment.safety.gate import SafetyGate
from grpo_ros.deployment.safety.geometry import ArmGeometry
from grpo_ros.deployment.safety.limiter import TOLERANCE
from grpo_ros.deployment.safety.stream_gate import Gated
from grpo_ros.robots.kinematics import solve_ik
from grpo_ros.robots.robot import Robot, load_robot

Row = tuple[str, str, str]
SEED = 5
NUM_STEPS, NUM_WITH_GEOMETRY, NUM_PROCESSES = 1_000_000, 100_000, 2
PERIOD_S = 0.05
REOPENED_EVERY = 5_000
SPECIAL = (np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324, 0.0, 1e6)


def hostile(
    num_steps: int = NUM_STEPS, num_with_geometry: int = NUM_WITH_GEOMETRY
) -> Iterator[Row]:
    """Send anything through gates with Franka's limits; count what breaks a limit."""
    parts = [
        (SEED + i, num // NUM_PROCESSES, has_geometry)
        for has_geometry, num in (
            (False, num_steps - num_with_geometry),
            (True, num_with_geometry),
        )
        for i in range(NUM_PROCESSES)
    ]
    with multiprocessing.get_context("spawn").Pool(NUM_PROCESSES) as pool:
        found = pool.starmap(_attack, parts, chunksize=1)
    for has_geometry in (False, True):
        of_kind = [
            result for part, result in zip(parts, found, strict=True) if part[2] == has_geometry
        ]
        steps, violations, interventions = (sum(result[k] for result in of_kind) for k in range(3))
        rate = sum(part[1] for part in parts if part[2] == has_geometry) / sum(
            result[3] for result in of_kind
        )
        name = "with geometry" if has_geometry else "joints' limits"
        yield (
            f"{steps:,} hostile steps, {name}",
            f"{violations} violations",
            f"{interventions:,} interventions; seeds {SEED} and {SEED + 1}",
        )
        yield f"steps per second, {name}", f"{rate:,.0f}", "per process, checks not counted"


def latency(rounds: int = 3000) -> Iterator[Row]:
    """Time sound chunks of a smooth motion in the workspace, new ones and ones that go on."""
    robot = load_robot("franka_fr3")
    for has_geometry in (False, True):
        for size in (4, 16):
            new, going_on, curve = _time_chunks(robot, size, has_geometry, rounds)
            name = f"K = {size}, {'with' if has_geometry else 'without'} geometry"
            yield f"admit, a new chunk each time, {name}", *_quantiles(new)
            yield f"admit, a chunk that goes on, {name}", *_quantiles(going_on)
            yield f"its curve, {name}", *_quantiles(curve)


def _quantiles(seconds: Array) -> tuple[str, str]:
    p50, p99 = np.quantile(seconds, (0.5, 0.99)) * 1e3
    return f"{p50:.3f} ms", f"p99 {p99:.3f} ms"


def _time_chunks(
    robot: Robot, size: int, has_geometry: bool, rounds: int
) -> tuple[Array, Array, Array]:
    """Return seconds per call of admit with new chunks, with the same ones, and of the curve."""
    centre = _inside(robot)
    gate = _gate(robot, has_geometry)
    gate.open(centre)
    time_s = PERIOD_S * np.arange(1, 2 * rounds + size + 1)[:, None]
    sway = np.sin(0.7 * time_s + np.arange(len(centre))) - np.sin(np.arange(len(centre)))
    path = centre + 0.03 * np.minimum(1.0, time_s / 5.0) ** 2 * sway
    found = np.empty((3, rounds))
    for i in range(rounds):
        # Alternately a little aside: never the chunk that was foreseen.
        new = path[2 * i : 2 * i + size] + 1e-8 * (i % 2)
        for kind, targets in ((0, new), (1, new[1:])):
            began = time.perf_counter()
            gated = gate.admit(gate.joint_names, targets)
            found[kind, i] = time.perf_counter() - began
            if kind == 0:
                began = time.perf_counter()
                _ = gated.curve
                found[2, i] = time.perf_counter() - began
    assert not gate.counts, f"the motion was not a sound one: {dict(gate.counts)}"
    return found[0], found[1], found[2]


def _gate(robot: Robot, has_geometry: bool) -> SafetyGate:
    num = robot.chain.num_joints
    geometry = ArmGeometry(robot, PERIOD_S, robot.safety.tip_speed_m_s)
    return SafetyGate(robot.limits[:num], PERIOD_S, geometry if has_geometry else None)


def _inside(robot: Robot) -> Array:
    """Return joint positions (A,) with the tip in the middle of the workspace, pointing down."""
    middle = [[sum(robot.workspace[axis]) / 2.0 for axis in ("x", "y", "z")]]
    down = torch.diag(torch.tensor([1.0, -1.0, -1.0]).double())[None]
    start = robot.home[: robot.chain.num_joints][None]
    return np.asarray(solve_ik(robot.chain, torch.tensor(middle).double(), down, start)[0].numpy())


# ---------------------------------------------------------------- the attack


def _attack(seed: int, num_steps: int, has_geometry: bool) -> tuple[int, int, int, float]:
    """Return steps, violations, interventions and the seconds that the gate took."""
    robot = load_robot("franka_fr3")
    gate, random = _gate(robot, has_geometry), np.random.default_rng([seed, has_geometry])
    checks = _Checks(gate)
    start = _inside(robot)
    violations, seconds = 0, 0.0
    for step in range(num_steps):
        if step % REOPENED_EVERY == 0:
            gate.open(start)
            gate.speed_share = 1.0
        position, velocity = gate.position, gate.velocity
        targets = _anything(random, gate)
        began = time.perf_counter()
        gated = _send(random, gate, targets)
        curve = gated.curve
        seconds += time.perf_counter() - began
        assert curve is not None
        violations += checks.count(gated, curve, position, velocity)
    return num_steps, violations, sum(gate.counts.values()), seconds


def _send(random: np.random.Generator, gate: SafetyGate, targets: Array) -> Gated:
    draw = random.random()
    if draw < 0.03:
        return gate.hold()
    if draw < 0.06:
        return gate.coast()
    if draw < 0.07:
        return gate.admit(gate.joint_names[::-1], targets)
    if draw < 0.08:
        return gate.admit(gate.joint_names, targets[:, 1:])
    if draw < 0.09:
        gate.speed_share = float(random.random())
    return gate.admit(gate.joint_names, targets)


def _anything(random: np.random.Generator, gate: SafetyGate) -> Array:
    """Return targets (R, J): noise of any size, or a path along the edge of the limits."""
    shape = int(random.choice([1, 1, 1, 2, 4])), len(gate.joint_names)
    step = gate.limiter.velocity_step
    if random.random() < 0.5:
        push = random.choice([-1.0, 0.0, 1.0, 1.0 + 5e-10], shape) * step
        ahead = np.cumsum(gate.velocity + np.cumsum(push, axis=0), axis=0)
        return np.asarray(gate.position + PERIOD_S * ahead)
    targets = gate.position + 10.0 ** random.uniform(-6.0, 3.0) * random.standard_normal(shape)
    if random.random() < 0.2:
        targets[:, random.integers(shape[1])] = random.choice(SPECIAL)
    return np.asarray(targets)


class _Checks:
    """Judges what a gate let through by its limits alone."""

    def __init__(self, gate: SafetyGate) -> None:
        self.gate, limiter = gate, gate.limiter
        share = TOLERANCE * (limiter.velocity + limiter.velocity_step)
        self.lower, self.upper = limiter.lower - 1e-8, limiter.upper + 1e-8
        self.velocity = limiter.velocity + share + 1e-11
        self.acceleration = limiter.acceleration + share / PERIOD_S + 1e-7
        self.jerk = limiter.jerk + 2.0 * share / PERIOD_S / limiter.ramp_s + 1e-4

    def count(self, gated: Gated, curve: Curve, position: Array, velocity: Array) -> int:
        """Return how many limits control points and curve break."""
        points = np.vstack([position, gated.points])
        speeds = np.vstack([velocity, np.diff(points, axis=0) / PERIOD_S])
        changes = np.diff(speeds, axis=0) / PERIOD_S
        span = np.diff(curve.times)[:, None]
        p, v = curve.positions, curve.velocities
        slope = 6.0 * np.diff(p, axis=0) / span
        begin = (slope - 4.0 * v[:-1] - 2.0 * v[1:]) / span
        end = (2.0 * v[:-1] + 4.0 * v[1:] - slope) / span
        broken = [
            (points < self.lower) | (points > self.upper),
            (p < self.lower) | (p > self.upper),
            np.abs(np.vstack([speeds, v])) > self.velocity,
            np.abs(np.vstack([changes, begin, end])) > self.acceleration,
            np.abs((end - begin) / span) > self.jerk,
            v[-1] != 0.0,
            ~np.isfinite(np.vstack([points, p, v])),
        ]
        num = sum(int(where.any()) for where in broken)
        geometry = self.gate.geometry
        if geometry is not None:
            tail = gated.points[1:, None] if len(gated.points) > 1 else gated.points[:1, None]
            num += int(not geometry.admissible(position, gated.points[:1], tail, is_chain=True)[0])
        return num
