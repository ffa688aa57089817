"""The reference of settings and metrics is generated, and current."""

import pytest

from grpo_ros.configuration import leaves
from grpo_ros.reference import pages, reference
from grpo_ros.training.settings import TrainConfig


def test_every_setting_is_in_the_reference():
    text = reference()
    for leaf in leaves(TrainConfig()):
        assert f"| `{leaf.key}` |" in text


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.stem)
def test_the_written_reference_is_current(path):
    assert path.read_text() == pages()[path], "run: python -m grpo_ros.reference"
