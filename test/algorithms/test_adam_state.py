"""Adam's state comes back where the parameters are, and is refused where it is another's."""

import pytest
import torch

from grpo_ros.algorithms.adam_state import ENTRIES, adam_state, load_adam_state
from grpo_ros.errors import CheckpointError


def stepped(parameters):
    """Return Adam after a step on parameters, whose gradients are 1."""
    optimizer = torch.optim.Adam([p for _, p in parameters], fused=True)
    for _, parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


def made(device="cpu"):
    return [("weight", torch.nn.Parameter(torch.ones(2, 3, device=device)))]


def test_all_of_a_loaded_state_is_on_the_parameter_s_device():
    """A checkpoint is read on the CPU, and a fused Adam wants its step counts beside the rest.

    `meta` stands for a GPU: it computes nothing, but places tensors as one does.
    """
    parameters = made()
    state = adam_state(stepped(parameters), parameters)
    elsewhere = made("meta")
    optimizer = torch.optim.Adam([p for _, p in elsewhere], fused=True)
    load_adam_state(optimizer, elsewhere, state)
    found = optimizer.state[elsewhere[0][1]]
    assert {name: value.device.type for name, value in found.items()} == dict.fromkeys(
        ENTRIES, "meta"
    )


def test_a_loaded_state_is_continued_bit_for_bit():
    parameters, others = made(), made()
    optimizer = stepped(parameters)
    state = adam_state(optimizer, parameters)
    resumed = torch.optim.Adam([p for _, p in others], fused=True)
    others[0][1].data.copy_(parameters[0][1].data)
    load_adam_state(resumed, others, state)
    for each, its in ((optimizer, parameters), (resumed, others)):
        its[0][1].grad = torch.full((2, 3), 0.5)
        each.step()
    assert torch.equal(parameters[0][1], others[0][1])
    assert state["weight/step"] == 1.0, "what was loaded is copied"


@pytest.mark.parametrize("damage", ["missing", "shape", "unknown"])
def test_the_state_of_others_is_refused(damage):
    parameters = made()
    state = adam_state(stepped(parameters), parameters)
    if damage == "missing":
        del state["weight/step"]
    elif damage == "shape":
        state["weight/exp_avg"] = torch.zeros(3)
    else:
        state["bias/step"] = torch.zeros(())
    with pytest.raises(CheckpointError, match="weight/|bias/step"):
        load_adam_state(stepped(parameters), parameters, state)
