"""Layers, overrides and mistakes of the configuration; what its hash covers."""

import dataclasses
import textwrap

import pytest

from grpo_ros import cli, configuration, presets, typed
from grpo_ros.configuration import Layer, config_hash, load_config, merge, read_layer, to_yaml
from grpo_ros.errors import ConfigurationError
from grpo_ros.tasks.registry import make_task
from grpo_ros.training.settings import TrainConfig


@pytest.fixture
def share(tmp_path, monkeypatch):
    """An empty folder of presets that is used instead of the package's."""
    (tmp_path / "config" / "tasks").mkdir(parents=True)
    monkeypatch.setattr(presets, "share_directory", lambda: tmp_path)
    return tmp_path


def _preset(share, kind, name, text):
    path = share / "config" / kind / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(textwrap.dedent(text))


MISTAKES = {
    "grup_size=8": ("'grup_size' = '8'", "command line", "did you mean 'group_size'?"),
    "learning_rate=1": ("'learning_rate'", "command line", "'grpo.learning_rate'"),
    "collection.group_sizes:=4": ("'collection.group_sizes'", "did you mean 'collection.group_si"),
    "nonsense_entirely=1": ("unknown key 'nonsense_entirely'", "--keys"),
    "seed": ("'seed'", "expected key=value or key:=value"),
    "=3": ("'=3'", "expected key=value"),
    "seed=x": ("'seed' = 'x'", "command line", "expected int"),
    "seed=-1": ("'seed' = -1", "expected a value in [0, 2147483647]"),
    "seed=true": ("'seed' = True", "expected int"),
    "group_size=1.5": ("'collection.group_size' = 1.5", "expected int"),
    "group_size=0": ("'collection.group_size' = 0", "expected a value in [1, inf]"),
    "film=maybe": ("'film' = 'maybe'", "expected bool"),
    "policy=gausian": ("'policy' = 'gausian'", "gaussian | flow", "did you mean 'gaussian'?"),
    "task=pick": ("'task' = 'pick'", "expected pick_place"),
    "grpo.baseline=men": ("'grpo.baseline' = 'men'", "'mean'", "did you mean 'mean'?"),
    "grpo=3": ("'grpo' is 3", "expected a mapping"),
    "seed.x=1": ("unknown key 'seed.x'",),
    "gaussian.hidden=[a": ("'gaussian.hidden'", "expected a YAML value"),
    "gaussian.hidden=a,b": ("'gaussian.hidden[0]' = 'a'", "expected int"),
    "mujoco.timestep_s=0": ("'mujoco.timestep_s'", "expected a value in [0.0001, inf] s"),
    "grpo.learning_rate=.nan": ("'grpo.learning_rate' is not a number",),
    "seed=2024-13-45": ("'seed' = '2024-13-45'", "expected a YAML value"),
    "seed=!!int abc": ("'seed' = '!!int abc'", "expected a YAML value"),
    "seed=!!timestamp x": ("'seed' = '!!timestamp x'", "expected a YAML value"),
    "seed=" + 5000 * "1": ("'seed' = '1111", "expected a YAML value"),
    "grpo.objectives=[outcome,score]": ("'grpo'", "expected one weight for each"),
}


@pytest.mark.parametrize("override", MISTAKES)
def test_a_mistake_names_key_value_expectation_and_origin(override):
    with pytest.raises(ConfigurationError) as found:
        load_config([override])
    for part in MISTAKES[override]:
        assert part in str(found.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("colection: {group_size: 4}", ("unknown key 'colection'", "did you mean 'collection'?")),
        ("collection: {group_size: many}", ("'collection.group_size' = 'many'", "expected int")),
        ("policy: flaw", ("'policy' = 'flaw'", "did you mean 'flow'?")),
        ("seed: [1", ("line 1", "is not YAML")),
        ("seed: 2024-13-45", ("is not YAML", "month must be in 1..12")),
        ("seed: !!bool x", ("is not YAML",)),
        (5000 * "[", ("is not YAML", "recursion")),
        ("- 1", ("holds [1]", "expected a mapping")),
        ("seed: 1\nfilm: true\nseed: 2", ("line 3", "key 'seed' stands twice")),
        ("grpo:\n  clip_low: 1\n  clip_low: 2", ("line 3", "key 'clip_low' stands twice")),
    ],
)
def test_a_mistake_in_a_file_names_the_file(tmp_path, text, parts):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as found:
        load_config(params_file=path)
    for part in (*parts, str(path)):
        assert part in str(found.value)


def test_a_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"seed: 1 # \xe9")
    with pytest.raises(ConfigurationError, match=r"mine\.yaml is not UTF-8 text"):
        load_config(params_file=path)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="gone.yaml: No such file"):
        load_config(params_file=tmp_path / "gone.yaml")


def test_each_layer_is_above_the_one_before(share, tmp_path):
    _preset(
        share,
        "tasks",
        "pick_place",
        """
        collection: {num_groups: 2, group_size: 2, env_steps: 2}
        evaluation: {episodes: 2, every_iterations: 2}
        """,
    )
    _preset(
        share,
        "policies",
        "flow",
        """
        collection: {env_steps: 4}
        evaluation: {episodes: 4, every_iterations: 4}
        """,
    )
    user = tmp_path / "user.yaml"
    user.write_text("policy: flow\nevaluation: {episodes: 5, every_iterations: 5}")
    config = load_config(
        ["evaluation.every_iterations=7"], user, parameters={"evaluation.every_iterations": 6}
    )
    assert config.collection.num_groups == 2
    assert config.collection.group_size == 2
    assert config.collection.env_steps == 4
    assert config.evaluation.episodes == 5
    assert config.evaluation.every_iterations == 7
    assert config.policy == "flow"
    only_parameters = load_config((), user, parameters={"evaluation.every_iterations": 6})
    assert only_parameters.evaluation.every_iterations == 6


def test_the_chosen_policy_decides_its_preset(share):
    _preset(share, "policies", "flow", "collection: {num_groups: 5}")
    assert load_config(["policy:=flow"]).collection.num_groups == 5
    assert load_config().collection.num_groups == TrainConfig().collection.num_groups


def test_a_preset_may_not_choose(share):
    _preset(share, "tasks", "pick_place", "policy: flow")
    with pytest.raises(ConfigurationError, match=r"pick_place\.yaml"):
        load_config()


def test_a_mistake_in_a_preset_names_the_preset(share):
    _preset(share, "tasks", "pick_place", "collection: {group_size: 0}")
    with pytest.raises(ConfigurationError, match=r"group_size.*tasks/pick_place\.yaml"):
        load_config(["group_size=4"])


def test_the_presets_of_the_package_are_valid():
    assert load_config().task == "pick_place"
    for policy in ("gaussian", "flow"):
        assert load_config([f"policy={policy}"]).policy == policy


@pytest.mark.parametrize("text", ["group_size=16", "group_size:=16", " group_size := 16 "])
def test_both_spellings_of_an_override_mean_the_same(text):
    assert load_config([text]).collection.group_size == 16


def test_values_are_read_as_their_setting_wants():
    config = load_config(
        [
            "grpo.learning_rate=1e-3",
            "grpo.kl_target=1",
            "gaussian.hidden=64,32",
            "output=2024",
            "film=no",
            "task.horizon=80",
            "grpo={clip_low: 0.1, clip_high: 0.3}",
        ]
    )
    assert config.grpo.learning_rate == 1e-3
    assert isinstance(config.grpo.kl_target, float)
    assert config.gaussian.hidden == (64, 32)
    assert config.output == "2024"
    assert config.film is False
    assert config.pick_place.horizon == 80
    assert (config.grpo.clip_low, config.grpo.clip_high) == (0.1, 0.3)


def test_a_resolved_configuration_round_trips_through_yaml(tmp_path):
    config = load_config(
        ["policy=flow", "seed=3", "grpo.minimum_learning_rate=1e-7", "randomise=true"]
    )
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert merge(TrainConfig, [read_layer(path)]) == config
    assert load_config(params_file=path) == config


def test_a_ros_parameter_file_is_read_like_a_plain_one(tmp_path):
    path = tmp_path / "ros.yaml"
    path.write_text(
        textwrap.dedent(
            """
            /**:
              ros__parameters:
                use_sim_time: false
                seed: 4
                collection.group_size: 16
                collection: {num_groups: 2}
            """
        )
    )
    config = load_config(params_file=path)
    assert (config.seed, config.collection.group_size, config.collection.num_groups) == (4, 16, 2)


def test_only_what_a_parameter_file_says_to_the_learner_is_read(tmp_path):
    path = tmp_path / "ros.yaml"
    path.write_text(
        "/**/learner: {ros__parameters: {seed: 4}}\n"
        "/**/simulator_bridge: {ros__parameters: {rate_hz: 5.0}}\n"
    )
    assert configuration.is_ros_file(path)
    assert load_config(params_file=path).seed == 4
    plain = tmp_path / "plain.yaml"
    plain.write_text("seed: 4")
    assert not configuration.is_ros_file(plain)


def test_a_parameter_file_of_other_nodes_alone_is_refused_where_training_is_asked_for(tmp_path):
    path = tmp_path / "ros.yaml"
    text = "/**/{}: {{ros__parameters: {{seed: 4}}}}\nrecorder: {{ros__parameters: {{}}}}\n"
    path.write_text(text.format("lerner"))
    with pytest.raises(
        ConfigurationError, match=r"parameters of /\*\*/lerner, recorder; expected"
    ):
        configuration.check_is_for_learner(path)
    assert cli.main(["train", "--config", str(path)]) == 2
    for node in ("learner", "*"):
        path.write_text(text.format(node))
        configuration.check_is_for_learner(path)
    path.write_text("seed: 4")
    configuration.check_is_for_learner(path)


def test_the_hash_ignores_what_decides_no_result():
    plain = config_hash(load_config())
    for same in (
        "output=elsewhere",
        "resume=never",
        "num_threads=1",
        "film=false",
        "checkpoint.keep_last=9",
        "flow.num_steps=8",
    ):
        assert config_hash(load_config([same])) == plain, same
    different = [
        config_hash(load_config([text]))
        for text in ("seed=1", "group_size=16", "policy=flow", "grpo.clip_low=0.1")
    ]
    assert len({plain, *different}) == 5


def test_every_setting_has_a_description():
    lacking = [leaf.key for leaf in configuration.leaves(TrainConfig()) if not leaf.description]
    assert lacking == []


def test_layers_of_any_tree_merge():
    @dataclasses.dataclass(frozen=True)
    class Inner:
        x: float = typed.setting(1.0, "x", minimum=0.0)
        names: tuple[str, ...] = ("a",)

    @dataclasses.dataclass(frozen=True)
    class Outer:
        inner: Inner = dataclasses.field(default_factory=Inner)

    # Local classes are not found by their annotations' names.
    Outer.__annotations__["inner"] = Inner
    config = merge(Outer, [Layer("a", {"inner": {"x": 2}}), Layer("b", {"inner": {"names": []}})])
    assert config == Outer(Inner(2.0, ()))
    with pytest.raises(ConfigurationError, match=r"'inner\.x' = -1.*\(b\)"):
        merge(Outer, [Layer("a", {}), Layer("b", {"inner": {"x": -1}})])


def test_presets_are_found_without_an_ament_index(monkeypatch):
    monkeypatch.setattr(presets, "_ament_share", lambda: [])
    assert (presets.share_directory() / "config" / "tasks" / "pick_place.yaml").is_file()


def test_presets_are_found_through_an_ament_index(tmp_path, monkeypatch):
    pytest.importorskip("ament_index_python")
    share = tmp_path / "share"
    index = share / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "grpo_ros").touch()
    (share / "grpo_ros" / "config").mkdir(parents=True)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    monkeypatch.setattr(presets, "__file__", str(tmp_path / "a" / "b" / "presets.py"))
    assert presets.share_directory() == share / "grpo_ros"


def test_without_any_presets_the_places_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(presets, "_candidates", lambda: iter([tmp_path / "nowhere"]))
    with pytest.raises(ConfigurationError, match="nowhere.*install the package again"):
        presets.share_directory()


def test_an_unknown_node_has_no_parameter_file():
    with pytest.raises(ConfigurationError, match="no parameter file of node 'lerner'"):
        presets.node_parameters("lerner")


def test_a_difficulty_stands_above_its_task_and_below_the_policy(share):
    _preset(share, "tasks", "navigate", "navigate: {num_obstacles: 1, horizon: 70}")
    _preset(share, "tasks", "navigate_hard", "navigate: {num_obstacles: 8}\nppo: {discount: 0.5}")
    _preset(share, "policies", "flow", "ppo: {discount: 0.9}")
    config = load_config(["task=navigate", "difficulty:=hard", "policy=flow"])
    assert (config.navigate.num_obstacles, config.navigate.horizon) == (8, 70)
    assert (config.ppo.discount, config.difficulty) == (0.9, "hard")
    plain = load_config(["task=navigate"])
    assert plain.navigate.num_obstacles == 1 and plain.difficulty == ""


def test_an_unknown_difficulty_names_those_there_are():
    with pytest.raises(ConfigurationError, match=r"'hrd' of task 'navigate'.*easy \| hard"):
        load_config(["task=navigate", "difficulty=hrd"])


def test_a_task_without_presets_of_its_difficulty_says_so(share):
    with pytest.raises(ConfigurationError, match="this task has one difficulty"):
        load_config(["task=pick_place", "difficulty=hard"])


@pytest.mark.parametrize("difficulty", ["easy", "medium", "hard"])
@pytest.mark.parametrize("task", ["pick_place", "stack", "insert", "reach", "navigate"])
def test_every_task_has_three_difficulties(task, difficulty):
    config = load_config([f"task={task}", f"difficulty={difficulty}"])
    made = make_task(task, getattr(config, task))
    assert made.name == task and made.horizon == getattr(config, task).horizon


def test_what_a_hybrid_is_made_of_is_set_by_its_name_and_counts():
    config = load_config(["algorithm=hybrid", "algorithm.objectives=[score]"])
    assert config.grpo.objectives == config.ppo.objectives == ("score",)
    assert load_config(["algorithm=hybrid", "algorithm.discount=0.5"]).ppo.discount == 0.5
    chosen = load_config(["algorithm=hybrid", "algorithm.mode=mix"])
    assert chosen.hybrid.mode == "mix"
    hashes = {
        config_hash(load_config(["algorithm=hybrid", *more]))
        for more in ([], ["grpo.clip_low=0.1"], ["ppo.discount=0.5"], ["hybrid.patience=9"])
    }
    assert len(hashes) == 4
    plain = [config_hash(load_config(more)) for more in ([], ["hybrid.patience=9"])]
    assert plain[0] == plain[1], "a hybrid's settings are nothing to GRPO"
    with pytest.raises(ConfigurationError, match="algorithm.modus"):
        load_config(["algorithm=hybrid", "algorithm.modus=mix"])
