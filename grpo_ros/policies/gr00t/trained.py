"""What learns of a GR00T: adapters, the action head, or all of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from grpo_ros.policies.gr00t.adapters import add_adapters
from grpo_ros.policies.gr00t.config import Gr00tConfig, Trained

Groups = dict[Trained, list[str]]
"""Mode -> names of the parameters that learn in it."""


def choose_what_learns(
    config: Gr00tConfig,
    whole: nn.Module,
    perception: nn.Module,
    head: Any,
    generator: torch.Generator,
) -> Groups:
    """Freeze a model but for what `config.trained` names; return what each mode would train.

    What is cloned or trained is held in float32. Adapters are added where a mode asks for them;
    those of the other modes then learn what is beneath.

    Args:
        config: `trained`, `cloned`, and the adapters' rank and alpha.
        whole: what names are of.
        perception: its vision-language model.
        head: its action head, LeRobot's GR00TN17ActionHead.
        generator: on the CPU; decides the adapters' first weights.

    Raises:
        MissingExtraError: peft is not installed.
    """
    modes = {config.trained, config.cloned_mode}
    chosen: dict[Trained, list[nn.Parameter]] = {"lora": [], "head": list(head.parameters())}
    chosen["full"] = [*perception.parameters(), *chosen["head"]]
    if "lora" in modes:
        chosen["lora"] = add_adapters(head.model, config.lora_rank, config.lora_alpha, generator)
    if modes != {"lora"}:
        head.float()
    if "full" in modes:
        perception.float()
    parameters = dict(whole.named_parameters())
    names = {id(parameter): name for name, parameter in parameters.items()}
    groups: Groups = {mode: [names[id(p)] for p in part] for mode, part in chosen.items()}
    learn(parameters, groups, config.trained)
    return groups


def learn(parameters: Mapping[str, nn.Parameter], groups: Groups, mode: Trained) -> None:
    """Let what learns in a mode require gradients, and nothing else of the groups."""
    for names in groups.values():
        for name in names:
            parameters[name].requires_grad_(False)
    for name in groups[mode]:
        parameters[name].requires_grad_(True)


def layers_of(module: nn.Module) -> list[nn.Module]:
    """Return the members of the outermost lists of like modules."""
    if isinstance(module, nn.ModuleList) and len({type(member) for member in module}) == 1:
        return list(module)
    return [layer for child in module.children() for layer in layers_of(child)]
