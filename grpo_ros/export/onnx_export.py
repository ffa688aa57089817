"""Export: a policy as ONNX, compared with what it was made from.

It is one self-contained file, or, where its weights are too many for that, several (`parts`).
"""

from __future__ import annotations

import dataclasses
import io
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from grpo_ros.contract import Contract
from grpo_ros.errors import PolicyFileError
from grpo_ros.export.metadata import ACTION_OUTPUT, NOISE_INPUT, policy_metadata, sealed
from grpo_ros.export.parts import OPSET, check_names, install, write_parts
from grpo_ros.export.policy_file import PolicyFile, load_policy_file
from grpo_ros.export.weights_beside import merge_equal_nodes
from grpo_ros.files import write_synced
from grpo_ros.policies.base import Policy, PolicyInParts
from grpo_ros.policies.features import field_shape

MAX_ABS_DIFFERENCE = 1e-5
"""Of an action's components, which are within [-1, 1]."""
DEPTH_ALLOWANCE = 10.0
"""How much more that may be of a policy as deep as a GR00T: its layers round one after another."""
NUM_RANDOM_ROWS = 256
NUM_ROWS_IN_PARTS = 8
"""Random rows, and given ones, that a policy in several files is compared on: it takes time."""
DEADLINE_S = 600.0
"""For loading what was written: it is no stranger's, and training may keep the machine busy."""
ONE_FILE_BYTES = 48_000_000
"""Of weights, that are written into one file; a policy file may have 64 MiB (`graph_file`)."""


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """How an exported file compares with the policy it was made from.

    Attributes:
        path: the file. num_bytes: its size, with all that belongs to it.
        sha256: of its contract.
        max_abs_difference: of any action component, over all observations tried.
        num_observations: how many were tried, given and random, alone and in batches.
    """

    path: Path
    num_bytes: int
    sha256: str
    max_abs_difference: float
    num_observations: int


def export_policy(
    policy: Policy,
    contract: Contract,
    path: Path | str,
    observations: Mapping[str, Tensor] | None = None,
    one_file_bytes: int = ONE_FILE_BYTES,
) -> ParityReport:
    """Write the deployed policy, then load what was written, run it and compare.

    The graph has one input per observation field, by name (N, *field_shape), a `noise` input
    (N, *noise_shape) where the contract has a noise shape, and one output `action` (N, K, A) in
    [-1, 1]. Normaliser and clamp are inside; N is free. A policy of two parts whose weights are
    more than `one_file_bytes` becomes two graphs and files of weights, which load as one policy.

    The policy appears under its name only when it is complete and has passed the comparison. What
    it replaces stays whole until then.

    A policy in another precision is written, and compared, in float32.

    Args:
        policy: on any device; left in evaluation mode.
        contract: put in as it is.
        path: of the file; its folder is made.
        observations: field -> (N, *field_shape), compared beside random ones.
        one_file_bytes: of float32 weights.

    Raises:
        PolicyFileError: the file gives other actions than the policy, or could not be written.
    """
    path = Path(path)
    deployed = policy.in_float32() if isinstance(policy, PolicyInParts) else policy
    in_parts = isinstance(deployed, PolicyInParts) and _weight_bytes(deployed) > one_file_bytes
    num_rows = NUM_ROWS_IN_PARTS if in_parts else NUM_RANDOM_ROWS
    samples = [_random_observations(contract, num_rows)]
    if observations is not None:
        rows = slice(num_rows if in_parts else None)
        samples.append({f.name: observations[f.name][rows].cpu() for f in contract.observation})
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        staged = staging / path.name
        if in_parts and isinstance(deployed, PolicyInParts):
            write_parts(deployed, contract, staged, samples[0])
        else:
            write_synced(staged, _serialise(deployed, contract, samples[0]))
        exported = load_policy_file(staged, deadline_s=DEADLINE_S)
        difference, count = 0.0, 0
        for sample in samples:
            difference = float(np.maximum(difference, _difference(deployed, exported, sample)))
            count += len(next(iter(sample.values())))
        allowance = DEPTH_ALLOWANCE if isinstance(deployed, PolicyInParts) else 1.0
        if not difference <= MAX_ABS_DIFFERENCE * allowance:
            raise PolicyFileError(
                f"exported actions differ from the policy's by {difference:.3g}",
                expected=f"at most {MAX_ABS_DIFFERENCE * allowance:g}",
                remedy="the graph does not compute what the policy does",
            )
        num_bytes = sum(file.stat().st_size for file in staging.iterdir())
        install(staged, path, exported.companions)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return ParityReport(path, num_bytes, contract.sha256, difference, count)


class _Deployed(nn.Module):
    """The deployed policy as a function of positional inputs, for tracing."""

    def __init__(self, policy: Policy, contract: Contract) -> None:
        super().__init__()
        self.policy, self.contract = policy, contract

    def forward(self, *values: Tensor) -> Tensor:
        names = [field.name for field in self.contract.observation]
        obs = dict(zip(names, values, strict=False))
        if self.contract.noise_shape:
            return self.policy.decide(obs, values[-1])
        return self.policy.mode(obs)


def _serialise(policy: Policy, contract: Contract, example: Mapping[str, Tensor]) -> bytes:
    """Return the bytes of the model with its metadata, sealed."""
    import onnx

    names = [field.name for field in contract.observation]
    check_names(names, {NOISE_INPUT, ACTION_OUTPUT})
    values = [example[name][:2] for name in names]
    if contract.noise_shape:
        names.append(NOISE_INPUT)
        values.append(torch.zeros(2, *contract.noise_shape))
    buffer = io.BytesIO()
    module = _Deployed(policy, contract).eval()
    device = next((p.device for _, p in policy.named_parameters()), torch.device("cpu"))
    with torch.no_grad(), warnings.catch_warnings():
        # The tracing exporter announces its own deprecation; the other one takes seconds.
        # It warns of constants and shapes (TracerWarning is a Warning of its own); whether they
        # are right, the comparison with the policy decides.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(value.to(device) for value in values),
            buffer,  # type: ignore[arg-type, unused-ignore]
            input_names=names,
            output_names=[ACTION_OUTPUT],
            dynamic_axes={name: {0: "N"} for name in [*names, ACTION_OUTPUT]},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_model_from_string(buffer.getvalue())
    merge_equal_nodes(model.graph)
    onnx.helper.set_model_props(model, policy_metadata(contract))
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return sealed(data)


def _weight_bytes(policy: Policy) -> int:
    return sum(4 * parameter.numel() for _, parameter in policy.named_parameters())


def _random_observations(contract: Contract, num_rows: int) -> dict[str, Tensor]:
    """Return observations that spread over what training saw, and beyond it."""
    generator = torch.Generator().manual_seed(0)
    obs = {}
    for field in contract.observation:
        shape = (num_rows, *field_shape(field))
        if field.dtype == "uint8":
            obs[field.name] = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
            continue
        values = 2.0 * torch.randn(shape, generator=generator)
        if field.statistics is not None:
            mean, std = torch.tensor(field.statistics.mean), torch.tensor(field.statistics.std)
            values = (values.flatten(1) * std + mean).view(shape)
        obs[field.name] = values
    return obs


@torch.no_grad()
def _difference(policy: Policy, exported: PolicyFile, obs: Mapping[str, Tensor]) -> float:
    """Return the largest difference of any action component, in one batch and row by row."""
    num_rows = len(next(iter(obs.values())))
    noise_shape = exported.contract.noise_shape
    inputs = dict(obs)
    noise = torch.randn(num_rows, *noise_shape, generator=torch.Generator().manual_seed(1))
    device = next((p.device for _, p in policy.named_parameters()), torch.device("cpu"))
    on_device = {name: value.to(device) for name, value in obs.items()}
    if noise_shape:
        inputs[NOISE_INPUT] = noise
        expected = policy.decide(on_device, noise.to(device))
    else:
        expected = policy.mode(on_device)
    arrays = {name: value.numpy() for name, value in inputs.items()}
    single = [exported.infer({n: a[i : i + 1] for n, a in arrays.items()}) for i in range(2)]
    batch = exported.infer(arrays)
    rows = np.concatenate([batch, *single[:num_rows]])
    reference = expected.cpu().numpy()
    reference = np.concatenate([reference, reference[: len(rows) - num_rows]])
    return float(np.abs(rows - reference).max())
