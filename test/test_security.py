"""Nothing that is loaded is executed: no unsafe loader in the package; hostile files refused."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from grpo_ros.configuration import load_config
from grpo_ros.errors import CheckpointError, ConfigurationError, GrpoRosError
from grpo_ros.experiments.results import Results
from grpo_ros.overrides import load_yaml
from grpo_ros.simulators.snapshot import Snapshot
from grpo_ros.training.checkpoint import load_checkpoint, save_checkpoint
from grpo_ros.training.demonstrations.folder import read_demonstrations

PACKAGE = Path(__file__).resolve().parents[1] / "grpo_ros"
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "torch.load",
    "os.system",
    "os.popen",
    "yaml.unsafe_load",
    "yaml.full_load",
    "yaml.load_all",
}


# ------------------------------------------------------------------ what is not there


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keywords(call: ast.Call) -> dict[str, str]:
    return {word.arg or "**": ast.unparse(word.value) for word in call.keywords}


def unsafe(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found += [f"imports {name}" for name in names if name.split(".")[0] in UNSAFE_MODULES]
    for name, call in calls(path):
        given = keywords(call)
        if name in UNSAFE_CALLS:
            found.append(f"calls {name}")
        if name.endswith("np.load") and given.get("allow_pickle", "False") != "False":
            found.append("np.load with allow_pickle")
        if name == "yaml.load" and given.get("Loader") not in ("_Loader", "yaml.SafeLoader"):
            found.append("yaml.load without a safe loader")
        if given.get("shell", "False") != "False":
            found.append(f"{name} with a shell")
        if given.get("trust_remote_code", "False") != "False":
            found.append(f"{name} trusts remote code")
    return found


def test_no_file_of_the_package_has_an_unsafe_loader():
    found = {str(path): each for path in PACKAGE.rglob("*.py") if (each := unsafe(path))}
    assert not found


def test_the_scan_finds_what_it_looks_for(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text(
        "import pickle\nfrom joblib import load\ntorch.load(f)\nyaml.load(f)\neval(x)\n"
        "np.load(f, allow_pickle=True)\nrun(c, shell=True)\nf(trust_remote_code=True)\n"
    )
    assert len(unsafe(path)) == 8
    path.write_text(
        "np.load(f)\nyaml.load(f, Loader=_Loader)\nrun(c, shell=False)\nre.compile(x)\n"
    )
    assert not unsafe(path)


# ------------------------------------------------------------------ what hostile files do


class Exploit:
    """Unpickled, it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.fixture
def exploit(tmp_path):
    """A pickle, and a check that nobody has unpickled it."""
    target = tmp_path / "executed"
    data = pickle.dumps(Exploit(target))
    yield data
    assert not target.exists(), "the file was executed"
    pickle.loads(data)
    assert target.exists(), "the exploit itself works"


def test_a_pickled_checkpoint_is_refused(tmp_path, exploit):
    folder = save_checkpoint(tmp_path / "000001", {"weights": torch.ones(2), "iteration": 1})
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("state.safetensors", "state.json"):
        original = (folder / name).read_bytes()
        (folder / name).write_bytes(exploit)
        manifest["sha256"][name] = hashlib.sha256(exploit).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(CheckpointError):
            load_checkpoint(folder)
        (folder / name).write_bytes(original)
        manifest["sha256"][name] = hashlib.sha256(original).hexdigest()
    (folder / "manifest.json").write_bytes(exploit)
    with pytest.raises(CheckpointError):
        load_checkpoint(folder)


def test_pickles_are_no_snapshots_results_or_demonstrations(tmp_path, exploit):
    with pytest.raises(GrpoRosError):
        Snapshot.from_bytes(exploit)
    path = tmp_path / "results.json"
    path.write_bytes(exploit)
    with pytest.raises(GrpoRosError):
        Results.read(path)
    folder = tmp_path / "demonstrations"
    folder.mkdir()
    for name in ("manifest.json", "episodes.safetensors"):
        (folder / name).write_bytes(exploit)
    from grpo_ros.tasks.registry import make_task

    with pytest.raises(GrpoRosError):
        read_demonstrations(folder, make_task("pick_place").contract())


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.mkdir [{}]",
        "!!python/object/new:os.mkdir [{}]",
        "seed: !!python/object/apply:os.mkdir [{}]",
        "!!python/name:os.system",
    ],
)
def test_tags_in_yaml_make_no_objects(tmp_path, text):
    target = tmp_path / "executed"
    path = tmp_path / "settings.yaml"
    path.write_text(text.format(target))
    with pytest.raises(ConfigurationError, match=r"settings\.yaml"):
        load_config([], path)
    with pytest.raises(yaml.YAMLError):
        load_yaml(text.format(target))
    assert not target.exists()


def test_a_bomb_of_yaml_aliases_is_refused_or_small(tmp_path):
    """Ten levels of ten aliases are ten thousand million values where they are written out."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigurationError) as raised:
        load_config([], path)
    assert len(str(raised.value)) < 10_000


def test_a_checkpoint_that_is_a_link_to_elsewhere_is_read_by_its_hash_alone(tmp_path):
    folder = save_checkpoint(tmp_path / "000001", {"iteration": 1})
    secret = tmp_path / "secret"
    secret.write_bytes(b"not yours")
    (folder / "state.json").unlink()
    (folder / "state.json").symlink_to(secret)
    with pytest.raises(CheckpointError, match="damaged") as raised:
        load_checkpoint(folder)
    assert "not yours" not in str(raised.value)


def test_saved_arrays_hold_no_objects(tmp_path):
    """heldout.npz is read by others with numpy's default, which unpickles nothing."""
    from grpo_ros.randomness import Key
    from grpo_ros.tasks.registry import make_task
    from grpo_ros.tasks.scene_state import scene_arrays

    np.savez(tmp_path / "heldout.npz", **scene_arrays(make_task("stack").sample([Key(0)])))
    with np.load(tmp_path / "heldout.npz") as arrays:
        assert all(arrays[name].dtype != object for name in arrays)
