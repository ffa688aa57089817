"""What a GR00T needs of memory: the real one's known sizes, and a tiny one's against the truth."""

import pytest

from grpo_ros import configuration
from grpo_ros.errors import ContractError
from grpo_ros.policies.memory import PolicyMemory
from grpo_ros.tasks.registry import make_task
from grpo_ros.training import memory
from grpo_ros.training.memory import estimate_memory
from grpo_ros.training.memory_measured import measure_memory
from grpo_ros.training.memory_table import Compared, memory_table

pytest.importorskip("lerobot")

from grpo_ros.policies.gr00t.files.tiny_checkpoint import make_tiny_checkpoint_for  # noqa: E402
from grpo_ros.policies.gr00t.memory import gr00t_memory  # noqa: E402 - needs the extra

MILLION = 1e6
COUNTED = (
    memory.FROZEN,
    memory.TRAINED,
    memory.GRADIENTS,
    memory.MOMENTS,
    memory.AVERAGE,
    memory.PERCEIVED,
    memory.SAMPLED,
    memory.OUTCOMES,
    memory.NOISE,
)
FLAGS = ("false", "true")
OF_CRITIC = (memory.CRITIC, memory.CRITIC_GRADIENTS, memory.CRITIC_MOMENTS)


def _config(*settings):
    return configuration.load_config(["task=pick_place", "policy=gr00t", *settings])


def _real(*settings) -> PolicyMemory:
    config = _config(*settings)
    contract = make_task(config.task, configuration.section(config, "task")).contract()
    return gr00t_memory(config.gr00t, contract)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    config = _config()
    contract = make_task(config.task, configuration.section(config, "task")).contract()
    return make_tiny_checkpoint_for(contract, tmp_path_factory.mktemp("gr00t") / "tiny")


def test_the_real_model_has_its_known_parameters():
    parts = _real("gr00t.trained=full").parts
    backbone = parts["vision tower"] + parts["language model"]
    head = sum(parts.values()) - backbone
    expected = {
        "diffusion transformer": 1092,
        "VL self-attention": 201,
        "action encoder": 233,
        "state encoder": 55,
        "action decoder": 38,
    }
    assert {name: round(parts[name] / MILLION) for name in expected} == expected
    assert backbone / MILLION == pytest.approx(1524, abs=1.0)
    assert head / MILLION == pytest.approx(1621, abs=1.0)
    assert sum(parts.values()) / MILLION == pytest.approx(3144, abs=0.5)


OWN = ("state encoder", "action encoder", "action decoder")
EMBODIMENTS = 32


def test_other_robots_layers_are_let_go():
    full = _real("gr00t.trained=full")
    others = sum(full.parts[name] for name in OWN) * (1 - 1 / EMBODIMENTS)
    assert full.trained.num == sum(full.parts.values()) - others


def test_adapters_of_rank_32_are_34_million_and_all_that_learns():
    small, wide = _real("gr00t.trained=lora"), _real("gr00t.trained=lora", "gr00t.lora_rank=64")
    assert small.trained.num / MILLION == pytest.approx(33.9, abs=0.1)
    assert wide.trained.num == 2 * small.trained.num
    assert small.frozen.num == _real("gr00t.trained=full").trained.num == wide.frozen.num
    assert small.frozen.num_bytes == 4 * small.frozen.num


def test_in_bfloat16_what_learns_stays_float32_and_the_rest_is_halved():
    head = _real("gr00t.trained=head", "gr00t.precision=bfloat16")
    assert (head.frozen.types, head.trained.types) == (("bfloat16",), ("float32",))
    assert head.frozen.num_bytes == 2 * head.frozen.num
    assert head.trained.num_bytes == 4 * head.trained.num
    assert head.gradients == head.trained.num_bytes
    matrices = head.parts["diffusion transformer"] + head.parts["VL self-attention"]
    matrices += sum(head.parts[name] for name in OWN) / EMBODIMENTS
    assert head.casts == pytest.approx(2 * matrices, rel=1e-3)


def test_on_a_gpu_what_adapters_attend_to_is_kept_in_float32_whatever_the_precision():
    settings = ("gr00t.trained=lora", "gr00t.precision=bfloat16")
    on_cpu, on_gpu = _real(*settings), _real(*settings, "gr00t.device=cuda")
    assert on_gpu.perceived["features"] == 2 * on_cpu.perceived["features"]
    assert on_gpu.device == "cuda"


def test_a_light_critic_adds_less_than_one_percent_and_nothing_on_the_gpu():
    settings = ("gr00t.device=cuda", "gr00t.precision=bfloat16", "algorithm.minibatch_size=32")
    ppo = estimate_memory(_config("algorithm=ppo", *settings))
    own = sum(item.num_bytes for item in ppo.items if item.name.startswith("critic"))
    assert own and all(i.device == "cpu" for i in ppo.items if i.name.startswith("critic"))
    assert 0.0 < ppo.critic_share < 0.01
    assert ppo.total("cuda") == ppo.total("cuda", with_critic=False)
    assert ppo.total("cuda") < ppo.total() <= ppo.total("cuda") + ppo.total("cpu")


def test_checkpointing_saves_most_of_what_autograd_keeps():
    full, saving = (_real("gr00t.trained=full", f"gr00t.checkpointing={on}") for on in FLAGS)
    assert full.checkpointed < 0.25 * full.activations
    assert (full.kept, saving.kept) == (full.activations, full.checkpointed)


def test_the_table_follows_the_setting():
    settings = ("gr00t.device=cuda", "algorithm.minibatch_size=32")
    plain, saving = (
        estimate_memory(_config(f"gr00t.checkpointing={on}", *settings)) for on in FLAGS
    )
    assert saving.bytes_of(memory.ACTIVATIONS) == plain.other_activations
    assert plain.bytes_of(memory.ACTIVATIONS) == saving.other_activations
    assert saving.total("cuda") < plain.total("cuda")
    for estimate in (plain, saving):
        table = memory_table([Compared(estimate, {})])
        word = "without" if estimate is saving else "with"
        assert f"  {word} gr00t.checkpointing " in table


def test_without_a_camera_there_is_nothing_to_count():
    with pytest.raises(ContractError, match="observes no image"):
        _real("task.cameras=[]")


@pytest.mark.parametrize(
    "settings",
    [
        ("gr00t.trained=lora", "algorithm=grpo", "grpo.reference_kl_coefficient=0.1"),
        ("gr00t.trained=lora", "algorithm=ppo", "gr00t.precision=bfloat16"),
        ("gr00t.trained=head", "algorithm=ppo", "gr00t.noise=learned"),
        ("gr00t.trained=full", "algorithm=grpo", "gr00t.likelihood=joint"),
    ],
    ids=lambda settings: " ".join(settings),
)
def test_the_estimate_is_what_one_real_iteration_takes(checkpoint, settings):
    config = _config(
        f"policy_path={checkpoint}",
        "num_groups=1",
        "group_size=2",
        "algorithm.minibatch_size=26",
        *settings,
    )
    estimate, measured = estimate_memory(config), measure_memory(config)
    names = [*COUNTED]
    names += OF_CRITIC if config.algorithm == "ppo" else ()
    names += [memory.REFERENCE] if config.grpo.reference_kl_coefficient else []
    assert (memory.REFERENCE in measured) == (memory.REFERENCE in names)
    assert (memory.CRITIC in measured) == (memory.CRITIC in names)
    for name in names:
        assert estimate.bytes_of(name) == pytest.approx(measured[name], rel=0.01), name
    kept = estimate.bytes_of(memory.ACTIVATIONS) + estimate.bytes_of(memory.CASTS)
    assert kept == pytest.approx(measured[memory.ACTIVATIONS], rel=0.15)
