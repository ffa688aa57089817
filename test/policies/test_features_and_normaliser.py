from __future__ import annotations

import dataclasses

import pytest
import torch

from grpo_ros.contract import ObservationField, Source
from grpo_ros.errors import ContractError, TrainingError
from grpo_ros.policies.features import field_shape, state_features
from grpo_ros.policies.normaliser import Normaliser


def test_features_follow_the_contract_and_not_the_mapping(make_contract):
    tip, gap = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[4.0, 5.0]])
    obs = {"gap": gap, "unused": torch.zeros(1, 9), "tip": tip}
    assert state_features(obs, make_contract()).tolist() == [[1.0, 2.0, 3.0, 4.0, 5.0]]


def test_features_take_scalars_and_histories(make_contract):
    fields = (
        ObservationField("opening", (), Source("gripper_command")),
        ObservationField("tip", (2,), Source("position"), history=2),
    )
    contract = dataclasses.replace(make_contract(), observation=fields)
    assert [field_shape(field) for field in fields] == [(), (2, 2)]
    obs = {"opening": torch.tensor([9.0]), "tip": torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])}
    assert state_features(obs, contract).tolist() == [[9.0, 1.0, 2.0, 3.0, 4.0]]
    assert contract.state_size == 5


def test_a_missing_field_is_named_with_its_nearest_match(make_contract):
    with pytest.raises(ContractError, match=r"'tip'.*did you mean 'tips'"):
        state_features({"tips": torch.zeros(1, 3), "gap": torch.zeros(1, 2)}, make_contract())


def test_normalised_data_have_zero_mean_and_unit_spread():
    data = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * 4.0 + 7.0
    normaliser = Normaliser(3)
    normaliser.fit(data)
    out = normaliser(data)
    torch.testing.assert_close(out.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std(0, correction=0), torch.ones(3), atol=1e-5, rtol=0)
    assert normaliser.minimum.tolist() == data.amin(0).tolist()
    assert normaliser.maximum.tolist() == data.amax(0).tolist()


def test_a_constant_feature_divides_by_the_floor_and_wild_values_are_clamped():
    normaliser = Normaliser(1)
    normaliser.fit(torch.full((10, 1), 2.0))
    assert normaliser(torch.tensor([[2.002]])).item() == pytest.approx(2.0, rel=1e-3)
    assert normaliser(torch.tensor([[1e9]])).item() == 10.0
    assert normaliser(torch.tensor([[-1e9]])).item() == -10.0


def test_a_normaliser_before_data_is_the_identity_and_annotates_nothing(make_contract):
    contract, normaliser = make_contract(), Normaliser(5)
    assert normaliser(torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])).tolist() == [[1, 2, 3, 4, 5]]
    assert normaliser.annotate(contract) == contract


@pytest.mark.parametrize("data", [torch.zeros(0, 2), torch.zeros(4, 3), torch.zeros(2)])
def test_data_of_another_shape_are_refused(data):
    with pytest.raises(TrainingError, match="shape"):
        Normaliser(2).fit(data)


def test_data_that_are_not_finite_are_refused_by_column():
    data = torch.zeros(3, 2)
    data[1, 1] = torch.nan
    with pytest.raises(TrainingError, match=r"\[1\]"):
        Normaliser(2).fit(data)


def test_statistics_reach_the_contract_field_by_field(make_contract):
    normaliser = Normaliser(5)
    normaliser.fit(torch.stack([torch.arange(5.0), torch.arange(5.0) + 2.0]))
    contract = normaliser.annotate(make_contract())
    tip, gap = (contract.field(name).statistics for name in ("tip", "gap"))
    assert (tip.mean, tip.std) == ((1.0, 2.0, 3.0), (1.0, 1.0, 1.0))
    assert (gap.minimum, gap.maximum) == ((3.0, 4.0), (5.0, 6.0))
