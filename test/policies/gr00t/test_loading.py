"""Model and prompts of a checkpoint: whole, silent, offline, without dropout."""

import json
import socket

import pytest
import torch
from checkpoint_files import change
from safetensors.torch import load_file, save_file
from torch import nn

from grpo_ros import extras
from grpo_ros.errors import CheckpointError, MissingExtraError
from grpo_ros.policies.gr00t.files.checkpoint import read_checkpoint
from grpo_ros.policies.gr00t.loading import (
    IMAGE_TOKEN,
    formalised,
    load_model,
    load_tokenizer,
    prompt_tokens,
)

INDEX = "model.safetensors.index.json"
HEAD = "action_head.action_decoder.layer2.b"


def rewrite(folder, name, value):
    """Write another tensor of a name, or leave it out where the value is None."""
    index = json.loads((folder / INDEX).read_text())
    shard = index["weight_map"].get(name) or min(index["weight_map"].values())
    tensors = load_file(folder / shard)
    tensors.pop(name, None)
    index["weight_map"].pop(name, None)
    if value is not None:
        tensors[name] = value
        index["weight_map"][name] = shard
    save_file(tensors, folder / shard)
    (folder / INDEX).write_text(json.dumps(index))


def test_every_tensor_is_the_one_on_disk(tiny_checkpoint, tiny_model):
    stored = {}
    for path in tiny_checkpoint.shards:
        stored.update(load_file(path))
    loaded = tiny_model.state_dict()
    assert set(loaded) - set(stored) == {"backbone.model.lm_head.weight"}
    for name, tensor in stored.items():
        assert torch.equal(loaded[name], tensor), name


def test_the_unused_head_costs_no_memory(tiny_model):
    backbone = tiny_model.backbone.model
    assert backbone.lm_head.weight is backbone.get_input_embeddings().weight


def test_what_is_not_stored_is_computed(tiny_model):
    frequencies = tiny_model.backbone.language_model.rotary_emb.inv_freq
    expected = 5e6 ** -(torch.arange(0, 16, 2) / 16)
    assert torch.allclose(frequencies, expected, rtol=1e-6)


def test_the_model_neither_drops_nor_trains(tiny_model):
    assert not tiny_model.training
    assert not any(parameter.requires_grad for parameter in tiny_model.parameters())
    dropouts = [module for module in tiny_model.modules() if isinstance(module, nn.Dropout)]
    assert dropouts and all(module.p == 0.0 for module in dropouts)
    assert tiny_model.action_head.state_dropout_prob == 0.0


def test_weights_have_the_type_that_was_asked_for(tiny_checkpoint):
    model = load_model(tiny_checkpoint, torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.backbone.language_model.rotary_emb.inv_freq.dtype == torch.float32


def test_loading_is_silent_offline_and_draws_nothing(tiny_checkpoint, monkeypatch, capfd):
    def refuse(*_):
        raise AssertionError("a connection was tried")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    before = torch.random.get_rng_state()
    load_model(tiny_checkpoint)
    load_tokenizer(tiny_checkpoint)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert capfd.readouterr() == ("", "")

    from huggingface_hub import constants

    assert constants.HF_HUB_OFFLINE is False  # as it was


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (HEAD, None, f"1 tensors are missing, e.g. '{HEAD}'"),
        ("action_head.extra", torch.zeros(1), "1 tensors are superfluous"),
        (HEAD, torch.zeros(32, 131), f"1 tensors are of another shape, e.g. '{HEAD}'"),
        (HEAD, torch.zeros(32, 132, dtype=torch.int64), f"'{HEAD}' is torch.int64"),
    ],
)
def test_tensors_that_do_not_fit_the_model_are_named(copied_folder, name, value, message):
    rewrite(copied_folder, name, value)
    with pytest.raises(CheckpointError, match=message):
        load_model(read_checkpoint(copied_folder))


def test_what_else_lies_in_the_folder_is_not_looked_at(copied_folder, tiny_model):
    (copied_folder / "adapter_config.json").write_text(
        '{"base_model_name_or_path": "someone/else", "peft_type": "LORA"}'
    )
    (copied_folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    for key in ("transformers_weights", "quantization_config", "auto_map"):
        change(copied_folder / "config.json", key, value={"quant_method": "x"})
    model = load_model(read_checkpoint(copied_folder))
    assert all(map(torch.equal, model.parameters(), tiny_model.parameters()))


def test_the_real_backbones_configuration_is_lerobots_own(copied_folder, tiny_model, monkeypatch):
    small = tiny_model.backbone.model.config  # in place of the 2 billion weights' one
    module = "lerobot.policies.groot.groot_n1_7._cosmos_reason2_qwen3_vl_config"
    monkeypatch.setattr(module, lambda: small)
    change(copied_folder / "config.json", "model_name", value="nvidia/Cosmos-Reason2-2B")
    (copied_folder / "tokenizer" / "config.json").unlink()
    model = load_model(read_checkpoint(copied_folder))
    assert all(map(torch.equal, model.parameters(), tiny_model.parameters()))


def test_a_config_that_describes_no_model_is_refused(copied_folder):
    change(copied_folder / "config.json", "diffusion_model_cfg", "num_attention_heads", value="x")
    with pytest.raises(CheckpointError, match="the model cannot be built"):
        load_model(read_checkpoint(copied_folder))


def test_a_damaged_tokenizer_is_refused(copied_folder):
    (copied_folder / "tokenizer" / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no tokenizer"):
        load_tokenizer(read_checkpoint(copied_folder))


def test_a_template_that_does_not_place_the_images_is_refused(copied_folder):
    (copied_folder / "tokenizer" / "chat_template.jinja").write_text("{{ messages[0].role }}")
    checkpoint = read_checkpoint(copied_folder)
    with pytest.raises(CheckpointError, match="places 0 images; expected 2, one <.image_pad.>"):
        prompt_tokens(checkpoint, "go", [(64, 64)] * 2)


def test_instructions_lose_capitals_and_punctuation():
    assert formalised("Pick up: the RED cube_2, now!") == "pick up the red cube_2 now"


def test_a_prompt_has_one_token_per_block_of_each_image(tiny_checkpoint, tiny_tokenizer):
    prompt = prompt_tokens(tiny_checkpoint, "go", [(180, 240), (64, 64)], tiny_tokenizer)
    assert prompt.grids == ((8, 8), (8, 8))
    assert prompt.input_ids.shape == prompt.is_image.shape
    assert prompt.is_image.sum() == 2 * 16
    assert (
        tiny_tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        == prompt.input_ids[prompt.is_image].unique()
    )


def test_an_absent_package_comes_with_its_remedy():
    with pytest.raises(MissingExtraError, match="needs the package lerobot.*EXTRAS=gr00t"):
        extras.import_extra("lerobot.no_such_module")
