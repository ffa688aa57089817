"""A checkpoint written by hand: all that reading needs, without any package of the extra."""

import json

import numpy as np
from safetensors.numpy import save_file

TAG = "new_embodiment"
RANGE = {"q01": [-1.0, -2.0], "q99": [1.0, 2.0], "min": [-3.0, -4.0], "max": [3.0, 4.0]}
RELATIVE = {"min": [[-1.0, -1.0], [-2.0, -1.0]], "max": [[1.0, 1.0], [2.0, 3.0]]}


def write_checkpoint(folder):
    """Write a checkpoint of one camera, one state and two action groups; return its folder."""
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir(parents=True)
    write(
        folder / "config.json",
        {
            "model_type": "Gr00tN1d7",
            "model_name": "nvidia/Cosmos-Reason2-2B",
            "max_state_dim": 8,
            "max_action_dim": 6,
            "action_horizon": 4,
            "num_inference_timesteps": 3,
        },
    )
    groups = {"video": ["front"], "state": ["arm"], "action": ["arm", "wrist"]}
    modality = {
        name: {"modality_keys": keys, "delta_indices": [0]} for name, keys in groups.items()
    }
    modality["action"]["delta_indices"] = [0, 1]
    modality["action"]["action_configs"] = [
        {"rep": "absolute"},
        {"rep": "RELATIVE", "type": "NON_EEF", "format": "DEFAULT", "state_key": "arm"},
    ]
    write(
        folder / "processor_config.json",
        {
            "processor_kwargs": {
                "modality_configs": {TAG: modality, "other_robot": modality},
                "max_state_dim": 8,
                "use_percentiles": True,
                "use_relative_action": True,
                "image_crop_size": [230, 230],
                "image_target_size": [256, 256],
            }
        },
    )
    write(folder / "embodiment_id.json", {TAG: 10, "other_robot": 3})
    ranges = {"state": {"arm": RANGE}, "action": {"arm": RANGE, "wrist": RANGE}}
    write(folder / "statistics.json", {TAG: {**ranges, "relative_action": {"wrist": RELATIVE}}})
    weight_map = {}
    for index in (1, 2):
        name = f"model-0000{index}-of-00002.safetensors"
        save_file({f"tensor_{index}": np.zeros((2, index), np.float32)}, folder / name)
        weight_map[f"tensor_{index}"] = name
    write(folder / "model.safetensors.index.json", {"weight_map": weight_map})
    write(tokenizer / "tokenizer.json", {})
    write(tokenizer / "tokenizer_config.json", {})
    write(
        tokenizer / "preprocessor_config.json",
        {
            "image_processor_type": "Qwen2VLImageProcessorFast",
            "patch_size": 16,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "size": {"shortest_edge": 65536, "longest_edge": 16777216},
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        },
    )
    return folder


def write(path, tree):
    path.write_text(json.dumps(tree))


def change(path, *keys, value):
    """Set a value in a JSON file, or take its key away where the value is `...`."""
    tree = json.loads(path.read_text())
    branch = tree
    for key in keys[:-1]:
        branch = branch[key]
    if value is ...:
        del branch[keys[-1]]
    else:
        branch[keys[-1]] = value
    write(path, tree)
