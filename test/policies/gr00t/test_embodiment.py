"""A checkpoint's groups against a contract's fields."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from gr00t_contract import STATES, make_contract

from grpo_ros.errors import ContractError
from grpo_ros.policies.gr00t.config import Gr00tConfig
from grpo_ros.policies.gr00t.embodiment import match
from grpo_ros.policies.gr00t.ranges import LinearMap


def matched(checkpoint, contract=None, **settings):
    settings.setdefault("state", STATES)
    return match(checkpoint, contract or make_contract(), Gr00tConfig(**settings))


def renamed(contract, old, new):
    observation = tuple(
        dataclasses.replace(field, name=new) if field.name == old else field
        for field in contract.observation
    )
    return dataclasses.replace(contract, observation=observation)


def test_groups_go_by_name_and_values_by_their_range(tiny_checkpoint):
    roles = matched(tiny_checkpoint)
    assert roles.images == ("front_image", "wrist_image")  # the checkpoint's order
    assert roles.states == ("finger", "angles")  # the contract's order
    assert roles.state_columns == (1, 2, 3, 0)
    assert roles.action_columns == (3, 0, 1, 2)
    # arm[0] from [-2, 2], arm[1] from [-1, 1.5], arm[2] that never varies, gripper from [0, 0.04]
    assert roles.state_scale.factor == pytest.approx((0.5, 0.8, 0.0, 50.0))
    assert roles.state_scale.offset == pytest.approx((0.0, -0.2, 0.0, -1.0))
    # gripper as it is; arm by the ratio of its range to the contract's scale
    assert roles.action_scale.factor == pytest.approx((1.0, 1.0, 1.0, 1.0))
    assert roles.action_scale.offset == pytest.approx((0.0, 0.0, 0.25, 0.0))


def test_a_part_of_a_field_may_be_named(tiny_checkpoint):
    contract = make_contract()
    wide = dataclasses.replace(
        contract,
        observation=tuple(
            dataclasses.replace(field, shape=(5,)) if field.name == "angles" else field
            for field in contract.observation
        ),
    )
    roles = matched(tiny_checkpoint, wide, state=("arm = angles[2:5]", "gripper=finger"))
    assert roles.state_columns == (3, 4, 5, 0)


def without(contract, name):
    return dataclasses.replace(
        contract,
        observation=tuple(field for field in contract.observation if field.name != name),
        action=tuple(field for field in contract.action if field.name != name),
    )


@pytest.mark.parametrize(
    ("contract", "settings", "expected"),
    [
        (make_contract(), {"state": ()}, "state 'arm' is no field.*gr00t.state"),
        (renamed(make_contract(), "front_image", "x"), {}, "camera 'front' is no image.*cameras"),
        (make_contract(), {"cameras": ("front=wrist_image",)}, "two of the checkpoint's cameras"),
        (make_contract(), {"state": ("arm=angles[0:2]",)}, "'arm' has 3 components.* 2"),
        (make_contract(), {"state": ("leg=angles",)}, "names 'leg'"),
        (make_contract(), {"action": ("arm:gripper",)}, "GROUP=FIELD"),
        (make_contract(), {"action": ("arm=gripper",)}, "3 components.* 1"),
        (without(make_contract(), "finger"), {}, "'finger'"),
        (make_contract(chunk_size=17), {}, "chunks of 17 actions.*at most 16"),
    ],
)
def test_what_does_not_fit_is_named(tiny_checkpoint, contract, settings, expected):
    with pytest.raises(ContractError, match=expected):
        matched(tiny_checkpoint, contract, **settings)


def test_actions_relative_to_the_state_are_refused(tiny_checkpoint):
    relative = dataclasses.replace(tiny_checkpoint.action[0], representation="RELATIVE")
    checkpoint = dataclasses.replace(
        tiny_checkpoint, action=(relative, *tiny_checkpoint.action[1:])
    )
    with pytest.raises(ContractError, match="RELATIVE to the state"):
        matched(checkpoint)


def test_actions_of_the_contract_that_nobody_gives_are_named(tiny_checkpoint):
    checkpoint = dataclasses.replace(tiny_checkpoint, action=tiny_checkpoint.action[:1])
    with pytest.raises(ContractError, match=r"actions \['gripper'\] are none of the checkpoint's"):
        matched(checkpoint)


def test_an_action_that_never_varied_in_the_statistics_is_cloned_as_the_middle_of_its_range(
    tiny_checkpoint,
):
    arm, gripper = tiny_checkpoint.action
    still = dataclasses.replace(arm, low=(*arm.low[:2], arm.high[2]), high=arm.high)
    checkpoint = dataclasses.replace(tiny_checkpoint, action=(still, gripper))
    roles = matched(checkpoint)
    actions = LinearMap(roles.action_columns, roles.action_scale)
    normalised = torch.tensor([[0.5, -1.0, 0.0, 1.0]])
    assert torch.allclose(actions.inverse(actions(normalised)), normalised)
    cloned = actions.inverse(torch.full((2, 4), 0.3))
    assert bool(cloned.isfinite().all()) and torch.equal(cloned[:, 2], torch.zeros(2))
