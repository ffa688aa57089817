"""Adapters of low rank: what is trained of a diffusion transformer that stays as it is."""

from __future__ import annotations

import math

import torch
from torch import nn

from grpo_ros.extras import import_extra

NAME = "grpo"


def add_adapters(
    module: nn.Module, rank: int, alpha: float, generator: torch.Generator
) -> list[nn.Parameter]:
    """Give every linear layer W an adapter, W x + (alpha / rank) B A x; return its parameters.

    LoRA (2106.09685), by peft. A is drawn, B is 0: at first nothing changes.

    Args:
        module: changed in place; all but the adapters is frozen.
        rank: of A (rank, inputs) and B (outputs, rank). alpha: see above.
        generator: on the CPU; decides A.

    Raises:
        MissingExtraError: peft is not installed.
    """
    peft = import_extra("peft")
    names = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=names)
    module.requires_grad_(False)
    peft.inject_adapter_in_model(config, module, adapter_name=NAME)
    adapters = []
    for name, parameter in module.named_parameters():
        if f".{NAME}." not in name:
            continue
        parameter.data = parameter.data.float()
        if ".lora_A." in name:
            bound = 1.0 / math.sqrt(parameter.shape[1])  # as of a linear layer
            drawn = torch.rand(parameter.shape, generator=generator) * 2.0 - 1.0
            parameter.data.copy_(drawn * bound)
        else:
            parameter.data.zero_()
        parameter.requires_grad_(True)
        adapters.append(parameter)
    return adapters
