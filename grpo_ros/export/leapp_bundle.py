"""A policy as a LEAPP bundle, the format that NVIDIA's Isaac ROS Deploy takes.

A bundle is a folder with a description in YAML and ONNX files; leapp 0.7.2 gives the schema. Ours:

policy.onnx: the policy file as it is, our contract inside.
actions.onnx: cuts `action` (N, K, A) into the contract's action fields and scales each to SI.
policy.yaml: what goes in and comes out, by name, kind, order, unit, rate; hashes of both files.

An input is of a kind of LEAPP's where its numbers are what that kind says: the named joints
(state/joint/position, state/joint/velocity), the position of a body in the base frame
(state/body/position), a difference of positions (state/vector3d), a wrench (state/wrench). All
else, and every field with a scale, is of a kind of ours, grpo_ros/SOURCE, so that a runtime asks
for a converter instead of guessing. Outputs likewise: joint positions are target/joint/position;
deltas, twists and grippers are grpo_ros/ACTION, since LEAPP has no kind for them.

The format has no place for how a policy is used, and a consumer has to bring it: the controller
that turns deltas into joint targets within the limits, the safety gate, the ages at which an
observation is stale, the end of an episode, how history is stacked, how noise is drawn. What the
contract says of these stands under `grpo_ros`, where no other runtime looks.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from grpo_ros import __version__, typed
from grpo_ros.contract import ActionField, Contract, ObservationField
from grpo_ros.errors import PolicyFileError
from grpo_ros.export.metadata import ACTION_OUTPUT, NOISE_INPUT
from grpo_ros.export.parts import OPSET
from grpo_ros.export.policy_file import PolicyFile, load_policy_file
from grpo_ros.files import write_atomically
from grpo_ros.policies.features import field_shape

CONFIG_VERSION = "1.3"
"""Of LEAPP's schema."""
IR_VERSION = 8
POLICY, ACTIONS = "policy", "actions"
"""Names of the two models."""
KIND = "grpo_ros/{}"
XYZ = ("x", "y", "z")
COMPONENTS = {
    "position": XYZ,
    "command_error": XYZ,
    "height": ("z",),
    "yaw": ("cos", "sin"),
    "polar": ("distance", "cos", "sin"),
    "gripper_command": ("opening",),
}


@dataclasses.dataclass(frozen=True)
class LeappBundle:
    """Where the parts of a bundle lie.

    Attributes:
        folder: of all of them.
        description: the YAML file.
        policy, actions: the ONNX files.
    """

    folder: Path
    description: Path
    policy: Path
    actions: Path


def export_leapp(policy_file: PolicyFile | Path | str, folder: Path | str) -> LeappBundle:
    """Write a policy file as a LEAPP bundle; see the module.

    The description is written last. It names the hashes of the two models, so leapp refuses a
    bundle that was written halfway over an older one.

    Args:
        policy_file: the file, or the policy read from it.
        folder: made where it is absent; other files in it are left alone.

    Raises:
        PolicyFileError: the file is not sound, or has names that LEAPP cannot carry.
    """
    source = policy_file.path if isinstance(policy_file, PolicyFile) else Path(policy_file)
    loaded = load_policy_file(source)
    contract = loaded.contract
    if loaded.companions:
        raise PolicyFileError(
            f"{source}: a policy in several files cannot be a bundle",
            expected="a policy in one file",
            remedy="train a smaller policy, or deploy it on the policy server",
        )
    _check_names(source, contract)
    folder = Path(folder)
    bundle = LeappBundle(
        folder, folder / "policy.yaml", folder / "policy.onnx", folder / "actions.onnx"
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(bundle.policy, source.read_bytes())
    policy = load_policy_file(bundle.policy)  # the bytes that were written
    write_atomically(bundle.actions, _actions_model(policy.contract))
    text = yaml.safe_dump(_description(policy, bundle), sort_keys=False, default_flow_style=None)
    write_atomically(bundle.description, text.encode())
    return bundle


def _check_names(path: Path, contract: Contract) -> None:
    """Raise PolicyFileError for names that would mean something else in a bundle."""
    inputs = [field.name for field in contract.observation]
    outputs = [field.name for field in contract.action]
    for name in (*inputs, *outputs):
        if "/" in name:
            raise PolicyFileError(
                f"{path}: field '{name}'", expected="no '/': LEAPP reads it as MODEL/TENSOR"
            )
    if clash := {ACTION_OUTPUT, NOISE_INPUT} & set(outputs):
        raise PolicyFileError(
            f"{path}: action {sorted(clash)} has the name of another tensor of the bundle",
            remedy="rename the field",
        )


def _actions_model(contract: Contract) -> bytes:
    """Return the model action (N, K, A) -> one output (N, K, size) in SI per action field."""
    from onnx import TensorProto, helper, numpy_helper

    rows: list[str | int] = ["N", contract.chunk_size]
    sizes = [field.size for field in contract.action]
    names = [f"{field.name}.unscaled" for field in contract.action]
    initializers = [numpy_helper.from_array(np.array(sizes, np.int64), "sizes")]
    nodes = [helper.make_node("Split", [ACTION_OUTPUT, "sizes"], names, axis=2)]
    outputs = []
    for field, name in zip(contract.action, names, strict=True):
        scale = f"{field.name}.scale"
        initializers.append(numpy_helper.from_array(np.array(field.scale, np.float32), scale))
        nodes.append(helper.make_node("Mul", [name, scale], [field.name]))
        shape = [*rows, field.size]
        outputs.append(helper.make_tensor_value_info(field.name, TensorProto.FLOAT, shape))
    shape = [*rows, contract.action_size]
    inputs = [helper.make_tensor_value_info(ACTION_OUTPUT, TensorProto.FLOAT, shape)]
    graph = helper.make_graph(nodes, ACTIONS, inputs, outputs, initializers)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    data: bytes = model.SerializeToString()
    return data


def _description(policy: PolicyFile, bundle: LeappBundle) -> dict[str, Any]:
    """Return the tree of the YAML file."""
    contract = policy.contract
    fields = {field.name: field for field in contract.observation}
    chunk = (1, contract.chunk_size, contract.action_size)
    return {
        "models": {
            POLICY: {
                "inputs": [
                    _input(fields[name], contract) if name in fields else _noise(contract)
                    for name in policy.input_names
                ],
                "outputs": [_tensor(ACTION_OUTPUT, chunk)],
                "parameters": _parameters(bundle.policy),
            },
            ACTIONS: {
                "inputs": [_tensor(ACTION_OUTPUT, chunk)],
                "outputs": [_output(field, contract) for field in contract.action],
                "parameters": _parameters(bundle.actions),
            },
        },
        "pipeline": {
            "configs": {
                "frequency": contract.control_rate_hz / contract.num_executed,
                "grpo_ros": _usage(contract),
            },
            "data_flow": {f"{POLICY}/{ACTION_OUTPUT}": [f"{ACTIONS}/{ACTION_OUTPUT}"]},
            "feedback_flow": {},
            "inputs": {POLICY: list(policy.input_names)},
            "outputs": {ACTIONS: [field.name for field in contract.action]},
        },
        # Isaac ROS Deploy takes the time between the rows of a chunk from here.
        "semantic": {"scene": {"dt": contract.period_s}},
        "system information": {
            "leapp config version": CONFIG_VERSION,
            "exporter": f"grpo_ros {__version__}",
        },
    }


def _parameters(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {
        "model_path": path.name,
        "md5sum": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "sha256sum": hashlib.sha256(data).hexdigest(),
        "backend": "onnx",
        "warp_segments": 0,
        "opset_version": OPSET,
    }


def _tensor(name: str, shape: tuple[int, ...], dtype: str = "float32") -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": list(shape), "type": "tensor"}


def _input(field: ObservationField, contract: Contract) -> dict[str, Any]:
    """Return the entry of an observation field."""
    shape = (1, *field_shape(field))
    entry = {**_tensor(field.name, shape, field.dtype), "kind": _input_kind(field)}
    names = COMPONENTS.get(field.source.kind, field.source.names)
    if field.source.kind == "last_action":
        names = tuple(f"{action.name}.{n}" for action in contract.action for n in action.names)
    if field.shape == (len(names),):
        entry["element_names"] = _element_names(shape, names)
    if field.history > 1:
        entry["temporal_period_ms"] = 1e3 * contract.period_s
    if not field.source.kind.startswith("joint_"):
        # Terms of one kind would share one topic; joints do, everything else is its own.
        entry["source"] = field.name
    return {**entry, "unit": field.unit, "frame": field.frame, "grpo_ros": _about(field)}


def _input_kind(field: ObservationField) -> str:
    source = field.source
    kind = {
        "joint_position": "state/joint/position",
        "joint_velocity": "state/joint/velocity",
        "position": "state/vector3d" if source.relative_to else "state/body/position",
        "command_error": "state/vector3d",
        "wrench": "state/wrench",
    }.get(source.kind)
    return kind if kind and field.scale == 1.0 else KIND.format(source.kind)


def _noise(contract: Contract) -> dict[str, Any]:
    entry = _tensor(NOISE_INPUT, (1, *contract.noise_shape))
    about = {"seeding": contract.noise_seeding, "distribution": "standard normal"}
    return {**entry, "kind": KIND.format(NOISE_INPUT), "source": NOISE_INPUT, "grpo_ros": about}


def _output(field: ActionField, contract: Contract) -> dict[str, Any]:
    """Return the entry of an action field: its chunk, in SI."""
    shape = (1, contract.chunk_size, field.size)
    is_target = field.kind == "joint_position"
    return {
        **_tensor(field.name, shape),
        "kind": "target/joint/position" if is_target else KIND.format(field.kind),
        "element_names": _element_names(shape, field.names),
        "temporal_period_ms": 1e3 * contract.period_s,
        "unit": field.unit,
        "frame": field.frame,
        "grpo_ros": _about(field),
    }


def _about(field: ObservationField | ActionField) -> dict[str, Any]:
    """Return what the contract says of a field and its entry does not."""
    said = ("name", "names", "shape", "dtype", "unit", "frame")
    tree: dict[str, Any] = typed.encode(field)
    return {name: value for name, value in tree.items() if name not in said and value is not None}


def _element_names(shape: tuple[int, ...], names: tuple[str, ...]) -> list[list[str]]:
    """Return a list per axis, empty but for the last one.

    LEAPP's own exporter writes a bare `__temporal_axis__` for the axis of time; Isaac ROS Deploy
    reads lists only.
    """
    return [[] for _ in shape[:-1]] + [list(names)]


def _usage(contract: Contract) -> dict[str, Any]:
    """Return what the contract says beyond its tensors."""
    left_out = ("observation", "action", "provenance", "randomisation")
    tree: dict[str, Any] = typed.encode(contract)
    usage = {name: value for name, value in tree.items() if name not in left_out}
    return {**usage, "contract_sha256": contract.sha256}
