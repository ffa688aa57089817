"""Export: a policy as one self-contained ONNX file, compared with what it was made from."""

from __future__ import annotations

import dataclasses
import io
import os
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
from grpo_ros.export.policy_file import PolicyFile, load_policy_file
from grpo_ros.policies.base import Policy
from grpo_ros.policies.features import field_shape

OPSET = 17
MAX_ABS_DIFFERENCE = 1e-5
NUM_RANDOM_ROWS = 256


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """How an exported file compares with the policy it was made from.

    Attributes:
        path: the file. num_bytes: its size. sha256: of its contract.
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
) -> ParityReport:
    """Write the deployed policy to a file, then run the file and compare.

    The graph has one input per observation field, by name (N, *field_shape), a `noise` input
    (N, *noise_shape) where the contract has a noise shape, and one output `action` (N, K, A) in
    [-1, 1]. Normaliser and clamp are inside; N is free. The file appears under its name only when
    it is complete and has passed the comparison.

    Args:
        policy: on any device; left in evaluation mode.
        contract: put in as it is.
        path: of the file; its folder is made.
        observations: field -> (N, *field_shape), compared beside random ones.

    Raises:
        PolicyFileError: the file gives other actions than the policy, or could not be written.
    """
    path = Path(path)
    samples = [_random_observations(contract)]
    if observations is not None:
        samples.append({f.name: observations[f.name].cpu() for f in contract.observation})
    data = _serialise(policy, contract, samples[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        exported = load_policy_file(temporary)
        difference, count = 0.0, 0
        for sample in samples:
            difference = max(difference, _difference(policy, exported, sample))
            count += len(next(iter(sample.values())))
        if not difference <= MAX_ABS_DIFFERENCE:
            raise PolicyFileError(
                f"exported actions differ from the policy's by {difference:.3g}",
                expected=f"at most {MAX_ABS_DIFFERENCE:g}",
                remedy="the graph does not compute what the policy does",
            )
        temporary.chmod(0o644)
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return ParityReport(path, len(data), contract.sha256, difference, count)


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
    if clash := {NOISE_INPUT, ACTION_OUTPUT} & set(names):
        raise PolicyFileError(
            f"observation fields {sorted(clash)} have the name of another input or output",
            remedy="rename the field",
        )
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
    onnx.helper.set_model_props(model, policy_metadata(contract))
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return sealed(data)


def _random_observations(contract: Contract) -> dict[str, Tensor]:
    """Return observations that spread over what training saw, and beyond it."""
    generator = torch.Generator().manual_seed(0)
    obs = {}
    for field in contract.observation:
        shape = (NUM_RANDOM_ROWS, *field_shape(field))
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


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
