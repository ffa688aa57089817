"""ROS parameters equal the typed tree that they are generated from."""

import dataclasses
import textwrap
from typing import Literal

import pytest

pytest.importorskip("rclpy")
import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter

from grpo_ros import typed
from grpo_ros.configuration import load_config
from grpo_ros.errors import ConfigurationError
from grpo_ros.nodes.shared.parameters import declare_parameters, given_parameters, read_parameters
from grpo_ros.overrides import leaves
from grpo_ros.training.settings import TrainConfig

pytestmark = pytest.mark.ros


@dataclasses.dataclass(frozen=True)
class Inner:
    """A branch."""

    rate_hz: float = typed.setting(20.0, "Rate", unit="Hz", minimum=0.5)
    ids: tuple[int, ...] = typed.setting((), "Numbers", minimum=0, maximum=9)


@dataclasses.dataclass(frozen=True)
class Toy:
    """A small tree."""

    name: str = typed.setting("a", "A name")
    kind: Literal["x", "y"] = typed.setting("x", "A choice")
    count: int = typed.setting(3, "A number", minimum=1, maximum=5)
    inner: Inner = typed.setting(factory=Inner)


@pytest.fixture
def make_node():
    """Makes nodes with the given ROS arguments, each in a context of its own."""
    made = []

    def make(*arguments, **kwargs):
        context = Context()
        rclpy.init(args=["--ros-args", *arguments], context=context)
        node = Node("learner", context=context, **kwargs)
        made.append((node, context))
        return node

    yield make
    for node, context in made:
        node.destroy_node()
        context.try_shutdown()


def test_every_setting_is_a_parameter_with_its_value_range_and_description(make_node):
    node = make_node()
    config = TrainConfig()
    declare_parameters(node, config)
    for leaf in leaves(config):
        value = node.get_parameter(leaf.key).value
        expected = list(leaf.default) if isinstance(leaf.default, tuple) else leaf.default
        assert (list(value) if isinstance(expected, list) else value) == expected, leaf.key
        found = node.describe_parameter(leaf.key)
        assert found.read_only
        assert found.description.startswith(leaf.description) and leaf.description
        assert found.description.endswith(f"[{leaf.unit}]" if leaf.unit else leaf.description)
        spans = [*found.integer_range, *found.floating_point_range]
        is_bounded = leaf.minimum is not None or leaf.maximum is not None
        assert bool(spans or found.additional_constraints.startswith("each in")) == (is_bounded), (
            leaf.key
        )
        if spans and leaf.minimum is not None:
            assert spans[0].from_value == leaf.minimum


def test_descriptors_name_choices_and_bounds_of_lists(make_node):
    node = make_node()
    declare_parameters(node, Toy())
    assert node.describe_parameter("kind").additional_constraints == "one of: x, y"
    assert node.describe_parameter("inner.ids").additional_constraints == "each in [0, 9]"
    assert node.describe_parameter("inner.rate_hz").description == "Rate [Hz]"
    assert list(node.get_parameter("inner.ids").value) == []


def test_a_read_only_parameter_cannot_be_set(make_node):
    node = make_node()
    declare_parameters(node, Toy())
    (result,) = node.set_parameters([Parameter("count", value=4)])
    assert not result.successful and "read-only" in result.reason


def test_a_writable_parameter_keeps_its_range(make_node):
    node = make_node()
    declare_parameters(node, Toy(), read_only=False)
    results = node.set_parameters([Parameter("count", value=4), Parameter("count", value=6)])
    assert [result.successful for result in results] == [True, False]


def test_a_parameter_file_and_the_command_line_reach_the_tree(make_node, tmp_path):
    path = tmp_path / "learner.yaml"
    path.write_text(
        textwrap.dedent(
            """
            /**/learner:
              ros__parameters:
                collection: {group_size: 16}
                grpo.kl_target: 1
                gaussian.hidden: [3, 4]
            """
        )
    )
    node = make_node(
        "--params-file",
        str(path),
        "-p",
        "seed:=4",
        automatically_declare_parameters_from_overrides=True,
    )
    config = load_config(["grpo.kl_target=2"], parameters=given_parameters(node))
    assert (config.seed, config.collection.group_size) == (4, 16)
    assert config.gaussian.hidden == (3, 4) and config.grpo.kl_target == 2.0
    declare_parameters(node, config)
    assert node.get_parameter("grpo.kl_target").value == 2.0


def test_an_unknown_parameter_is_refused_by_name(make_node):
    node = make_node("-p", "grup_size:=4", automatically_declare_parameters_from_overrides=True)
    with pytest.raises(ConfigurationError, match=r"unknown key 'grup_size'.*ROS parameters"):
        load_config(parameters=given_parameters(node))


def test_read_parameters_gives_the_tree_with_what_was_given(make_node):
    node = make_node("-p", "count:=5", "-p", "inner.rate_hz:=2", "-p", "inner.ids:=[1, 2]")
    assert read_parameters(node, Toy()) == Toy(count=5, inner=Inner(2.0, (1, 2)))


@pytest.mark.parametrize("given", ["count:=9", "count:=many", "kind:=z", "inner.ids:=[1, 70]"])
def test_read_parameters_refuses_what_the_tree_refuses(make_node, given):
    with pytest.raises(ConfigurationError, match=given.partition(":")[0].replace(".", r"\.")):
        read_parameters(make_node("-p", given), Toy())
