"""The reference of settings is generated, and current."""

from grpo_ros.configuration import leaves
from grpo_ros.reference import PATH, reference
from grpo_ros.training.settings import TrainConfig


def test_every_setting_is_in_the_reference():
    text = reference()
    for leaf in leaves(TrainConfig()):
        assert f"| `{leaf.key}` |" in text


def test_the_written_reference_is_current():
    assert PATH.read_text() == reference(), "run: python -m grpo_ros.reference"
