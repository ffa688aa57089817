"""Policies that move for ever, and turn bad when the goal is put far from the cube."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path

import numpy as np
import onnx
from deploy_helpers import export_untrained
from onnx import helper, numpy_helper

from grpo_ros.contract import Contract
from grpo_ros.export.policy_file import load_policy_file

sys.path.append(str(Path(__file__).resolve().parents[1] / "export"))
from hostile import write_sealed  # noqa: E402

TURN, GROW, LIFT = 7.0, -1.5, 3.0
"""Of the way round the cube: how fast, how much wider each time, how soon at its height."""
HEIGHT_M = 0.25
FAR_M = 0.5
"""The goal's x from the cube beyond which a policy turns bad."""


def without_gripper(contract: Contract) -> Contract:
    """Return a contract that commands the arm alone: nothing waits for a gripper's driver."""
    return dataclasses.replace(contract, action=contract.action[:1])


def export_orbit(
    path: Path, has_gripper: bool = False, bad: str = "", rate_hz: float = 20.0
) -> Path:
    """Write a policy that leads the tip round the cube; return its path.

    Args:
        path: of the ONNX file.
        has_gripper: whether it commands the gripper too, always open.
        bad: what it does while the goal is far: `nan` in its output, or `slow`.
        rate_hz: of the control; steps are as long as the same speed asks for.
    """
    keep = (lambda contract: contract) if has_gripper else without_gripper
    steps = {"control_rate_hz": rate_hz, "step_m": 0.6 / rate_hz, "step_rad": 3.0 / rate_hz}
    export_untrained(path, horizon=10_000, edit=keep, **steps)
    contract = load_policy_file(path).contract
    chunk, size = contract.chunk_size, contract.action_size
    model = onnx.load(path)
    graph = model.graph
    one = np.zeros((3, size), np.float32)
    one[:2, :2] = [[GROW, TURN], [-TURN, GROW]]
    one[2, 2] = LIFT
    offset = np.zeros(size, np.float32)
    offset[2] = LIFT * HEIGHT_M
    offset[4:] = 1.0
    for node in graph.node:
        node.output[:] = ["untrained" if name == "action" else name for name in node.output]
    constants = {
        "way": np.tile(one, (1, chunk)),
        "way_offset": np.tile(offset, chunk),
        "way_low": np.array(-1.0, np.float32),
        "way_high": np.array(1.0, np.float32),
        "way_shape": np.array([-1, chunk, size]),
        "far": np.array(FAR_M, np.float32),
        "x_column": np.array([0]),
        "not_a_number": np.array(np.nan, np.float32),
        "nothing": np.array(0.0, np.float32),
    }
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(value, name))
    make = helper.make_node
    graph.node.extend(
        [
            make("MatMul", ["cube_from_tip", "way"], ["way_raw"]),
            make("Add", ["way_raw", "way_offset"], ["way_moved"]),
            make("Clip", ["way_moved", "way_low", "way_high"], ["way_clipped"]),
            make("Reshape", ["way_clipped", "way_shape"], ["good" if bad else "action"]),
        ]
    )
    if bad:
        _turn_bad(model, bad)
    write_sealed(model, path)
    return path


def _turn_bad(model: onnx.ModelProto, bad: str) -> None:
    make = helper.make_node
    nodes = [
        make("Gather", ["goal_from_cube", "x_column"], ["goal_x"], axis=1),
        make("Greater", ["goal_x", "far"], ["is_far"]),
        make("ReduceMax", ["goal_x"], ["farthest"], keepdims=0),
        make("Greater", ["farthest", "far"], ["any_far"]),
    ]
    if bad == "nan":
        nodes.append(make("Where", ["any_far", "not_a_number", "nothing"], ["added"]))
    else:
        for name, value in (("few", 2), ("many", slow_size()), ("twice", [2])):
            model.graph.initializer.append(
                numpy_helper.from_array(np.array(value, np.int64), name)
            )
        nodes += [
            make("Where", ["any_far", "many", "few"], ["edge"]),
            make("Expand", ["edge", "twice"], ["edges"]),
            make("ConstantOfShape", ["edges"], ["square"]),
            make("MatMul", ["square", "square"], ["product"]),
            make("ReduceSum", ["product"], ["added"], keepdims=0),
        ]
    nodes.append(make("Add", ["good", "added"], ["action"]))
    model.graph.node.extend(nodes)


def slow_size(seconds: float = 0.3, probe: int = 600) -> int:
    """Return the edge of square matrices whose product takes so long here, on one core."""
    square = np.zeros((probe, probe), np.float32)
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        square @ square
        taken.append(time.perf_counter() - began)
    return int(np.clip(probe * (seconds / min(taken)) ** (1.0 / 3.0), 1000, 6000))
