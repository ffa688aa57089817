"""Our reading of a checkpoint against LeRobot's whole GR00T pipeline, on the same files."""

import numpy as np
import pytest
import torch
from gr00t_helpers import ACTION, INSTRUCTION, STATE, require_gr00t

from grpo_ros.policies.gr00t.images import ImageTransform
from grpo_ros.policies.gr00t.loading import prompt_tokens

HEIGHT, WIDTH, NUM_ENVS = 72, 96, 2


@pytest.fixture(scope="module")
def pipeline(tiny_folder):
    """LeRobot's policy, its pre-processor and its post-processor."""
    require_gr00t()
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies.groot import processor_groot
    from lerobot.policies.groot.configuration_groot import GrootConfig
    from lerobot.policies.groot.modeling_groot import GrootPolicy

    image = PolicyFeature(FeatureType.VISUAL, (3, HEIGHT, WIDTH))
    state, action = (sum(len(low) for low, _ in groups.values()) for groups in (STATE, ACTION))
    config = GrootConfig(
        base_model_path=str(tiny_folder),
        device="cpu",
        use_bf16=False,
        embodiment_tag="new_embodiment",
        n_action_steps=16,
        chunk_size=40,
        input_features={
            "observation.images.front": image,
            "observation.images.wrist": image,
            "observation.state": PolicyFeature(FeatureType.STATE, (state,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (action,))},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.chdir(tiny_folder)  # its config.json names the backbone's folder, `tokenizer`
        policy = GrootPolicy.from_pretrained(str(tiny_folder), config=config)
        backbone = str(tiny_folder / "tokenizer")
        patch.setattr(processor_groot, "GROOT_N1_7_BACKBONE_MODEL", backbone)
        before, after = processor_groot.make_groot_pre_post_processors(config)
    return policy.eval(), before, after


@pytest.fixture(scope="module")
def observation():
    generator = torch.Generator().manual_seed(1)
    shape = (NUM_ENVS, 3, HEIGHT, WIDTH)
    images = {
        f"observation.images.{name}": torch.randint(
            0, 256, shape, generator=generator, dtype=torch.uint8
        )
        for name in ("wrist", "front")  # the checkpoint's order counts, not this one
    }
    state = torch.rand(NUM_ENVS, 4, generator=generator) * 3.0 - 1.5
    return {**images, "observation.state": state, "task": [INSTRUCTION] * NUM_ENVS}


@pytest.fixture(scope="module")
def batch(pipeline, observation):
    return pipeline[1](dict(observation))


def test_prompts_are_the_same_tokens(batch, tiny_checkpoint, tiny_tokenizer):
    ours = prompt_tokens(tiny_checkpoint, INSTRUCTION, [(HEIGHT, WIDTH)] * 2, tiny_tokenizer)
    assert torch.equal(batch["input_ids"], ours.input_ids.expand(NUM_ENVS, -1))
    assert torch.equal(batch["attention_mask"], torch.ones_like(batch["input_ids"]))
    assert batch["image_grid_thw"].tolist() == [[1, *grid] for grid in ours.grids] * NUM_ENVS


def test_images_are_the_same_patches(batch, observation, tiny_checkpoint):
    geometry, settings = tiny_checkpoint.geometry, tiny_checkpoint.image_processor
    transform = ImageTransform(geometry, settings, HEIGHT, WIDTH)
    views = [observation[f"observation.images.{name}"] for name in tiny_checkpoint.cameras]
    ours = transform(torch.stack(views, dim=1).permute(0, 1, 3, 4, 2))
    difference = (ours.flatten(0, 2) - batch["pixel_values"]).abs()
    assert difference.max() * settings.std[0] * 255 <= 2.0
    assert difference.max() > 0.0  # they round, and this does not


def test_states_are_mapped_by_the_same_ranges(batch, observation, tiny_checkpoint):
    low = torch.tensor([value for group in tiny_checkpoint.state for value in group.low])
    high = torch.tensor([value for group in tiny_checkpoint.state for value in group.high])
    span = high - low
    mapped = 2.0 * (observation["observation.state"] - low) / torch.where(span == 0, 1.0, span) - 1
    mapped = torch.where(span == 0, 0.0, mapped.clamp(-1.0, 1.0))
    assert torch.allclose(batch["state"][:, 0, : tiny_checkpoint.state_size], mapped, atol=1e-6)
    assert batch["state"].shape == (NUM_ENVS, 1, tiny_checkpoint.model_config["max_state_dim"])
    assert batch["embodiment_id"].tolist() == [tiny_checkpoint.embodiment_id] * NUM_ENVS


def test_chunks_are_the_same_for_the_same_inputs(pipeline, batch, tiny_model):
    policy, _, _ = pipeline
    names = ("input_ids", "attention_mask", "pixel_values", "image_grid_thw", "state")
    inputs = {name: batch[name] for name in (*names, "embodiment_id")}
    chunks = []
    for model in (policy._groot_model, tiny_model):
        torch.manual_seed(3)
        chunks.append(model.get_action(dict(inputs))["action_pred"])
    assert torch.equal(*chunks)
    assert chunks[0].std() > 0.1


def test_actions_are_mapped_back_by_the_same_ranges(pipeline, tiny_checkpoint):
    size, horizon = tiny_checkpoint.action_size, tiny_checkpoint.action_horizon
    normalised = torch.rand(NUM_ENVS, horizon, size) * 2.4 - 1.2
    theirs = pipeline[2](normalised)
    low = np.concatenate([group.low for group in tiny_checkpoint.action])
    high = np.concatenate([group.high for group in tiny_checkpoint.action])
    ours = low + (normalised.clamp(-1.0, 1.0).numpy() + 1.0) / 2.0 * (high - low)
    assert theirs.shape == (NUM_ENVS, horizon, size)
    assert np.abs(theirs.numpy() - ours).max() < 1e-6
