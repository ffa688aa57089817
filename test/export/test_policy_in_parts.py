"""A policy in several files: written whole or not at all, and opened with suspicion."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hostile import get_metadata, set_metadata, write_sealed
from torch import nn

from grpo_ros.deployment.inference import ThreadedInference
from grpo_ros.errors import PolicyFileError
from grpo_ros.export import companions, onnx_export, policy_file
from grpo_ros.export.leapp_bundle import export_leapp
from grpo_ros.export.metadata import COMPANIONS_KEY, FEATURES
from grpo_ros.export.noise_source import NoiseSource
from grpo_ros.export.onnx_export import export_policy
from grpo_ros.export.policy_file import load_policy_file

WIDTH, ROWS = 128, 5


class TwoPartPolicy(nn.Module):
    """Looks at `tip` through a network of its own; layers and an embedding, as a GR00T has."""

    noise_shape = (4, 2)
    seen_names = ("tip",)
    ratio_rounding = 0.0

    def __init__(self, contract, seed=0):
        super().__init__()
        self.contract = contract
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.words = nn.Embedding(1000, WIDTH)
            self.look = nn.Sequential(nn.Linear(3, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
            self.head = nn.Sequential(nn.Linear(WIDTH + 2, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 8))
        self.register_buffer("ids", torch.tensor([3, 999]))

    def in_float32(self):
        return self

    def features(self, obs):
        return self.look(obs["tip"]).unsqueeze(1) + self.words(self.ids)

    def decide_on(self, features, obs, noise):
        x = self.head(torch.cat((features.mean(dim=1), obs["gap"]), dim=1)).view(-1, 4, 2)
        return (x if noise is None else x + 0.1 * noise).clamp(-1.0, 1.0)

    def decide(self, obs, noise):
        return self.decide_on(self.features(obs), obs, noise)

    def mode(self, obs):
        return self.decide_on(self.features(obs), obs, None)

    def _unused(self, *_):
        raise NotImplementedError

    perceive = act = log_prob = distribution = sampled_value = entropy = constrain = _unused


def observe(num=ROWS):
    generator = torch.Generator().manual_seed(4)
    return {name: torch.randn(num, n, generator=generator) for name, n in (("tip", 3), ("gap", 2))}


@pytest.fixture(scope="module")
def written(make_contract, tmp_path_factory):
    """A folder with a policy of four files; not to be changed."""
    contract = dataclasses.replace(make_contract(), noise_shape=(4, 2))
    folder = tmp_path_factory.mktemp("parts")
    export_policy(TwoPartPolicy(contract), contract, folder / "policy.onnx", one_file_bytes=0)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "copy")


def listed(folder):
    model = onnx.load(folder / "policy.onnx", load_external_data=False)
    return model, json.loads(get_metadata(model, COMPANIONS_KEY))


def relisted(folder, change):
    """Alter the list of companions, and seal the file again."""
    model, entries = listed(folder)
    entries = change(entries) or entries
    set_metadata(model, COMPANIONS_KEY, json.dumps(entries))
    write_sealed(model, folder / "policy.onnx")


def name_of(folder, start, suffix):
    (name,) = (p.name for p in folder.iterdir() if p.name.startswith(start) and p.suffix == suffix)
    return name


def backbone_data(folder):
    return folder / name_of(folder, "policy_backbone", ".data")


def head_data(folder):
    return folder / name_of(folder, "policy-", ".data")


def test_it_is_one_policy_for_whoever_uses_it(written):
    policy = load_policy_file(written / "policy.onnx")
    assert policy.input_names == ("tip", "gap", "noise")
    assert policy.provider == "CPUExecutionProvider"
    source = TwoPartPolicy(policy.contract)
    for num in (1, 2, ROWS):
        obs, noise = observe(num), torch.randn(num, 4, 2)
        with torch.no_grad():
            expected = source.decide(obs, noise).numpy()
        arrays = {name: value.numpy() for name, value in obs.items()}
        found = policy.infer({**arrays, "noise": noise.numpy()})
        assert np.abs(found - expected).max() <= 1e-5
    assert {c.name for c in policy.companions} | {"policy.onnx"} == set(os.listdir(written))


def test_of_an_embedding_only_the_rows_that_are_read_are_written(written):
    num_words = (WIDTH * 3 + WIDTH + WIDTH * WIDTH + WIDTH + 2 * WIDTH) * 4
    assert backbone_data(written).stat().st_size <= num_words


def test_it_is_found_through_a_link_to_its_file(folder, tmp_path):
    (tmp_path / "link.onnx").symlink_to(folder / "policy.onnx")
    assert load_policy_file(tmp_path / "link.onnx").companions


def test_the_policy_servers_thread_gives_its_next_chunk_beside_the_loop(written):
    policy = load_policy_file(written / "policy.onnx", ("cuda", "cpu"))
    noise = NoiseSource(policy.contract, seed=3)
    row = {name: value[:1].numpy() for name, value in observe().items()}
    inference = ThreadedInference(policy.infer)
    try:
        for number in range(2):
            asked = {**row, "noise": noise.draw(0, number)}
            inference.submit(number, asked)
            answer = inference.poll(30.0)
            assert answer.tag == number and not answer.problem
            assert np.array_equal(answer.chunk, policy.infer(asked))
    finally:
        inference.close()


def test_little_weights_stay_in_one_file(make_contract, tmp_path):
    contract = dataclasses.replace(make_contract(), noise_shape=(4, 2))
    export_policy(TwoPartPolicy(contract), contract, tmp_path / "policy.onnx")
    assert os.listdir(tmp_path) == ["policy.onnx"]


# ---------------------------------------------------------------- whole or not at all


def test_a_newer_policy_takes_the_older_ones_place_and_its_files_go(folder):
    contract = load_policy_file(folder / "policy.onnx").contract
    (folder / "policy-notes.data").write_text("of somebody else")
    before = set(os.listdir(folder))
    export_policy(TwoPartPolicy(contract, 1), contract, folder / "policy.onnx", one_file_bytes=0)
    policy = load_policy_file(folder / "policy.onnx")
    names = {c.name for c in policy.companions} | {"policy.onnx", "policy-notes.data"}
    assert set(os.listdir(folder)) == names != before


def test_one_that_differs_from_the_policy_leaves_the_older_one(folder, monkeypatch):
    contract = load_policy_file(folder / "policy.onnx").contract
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(onnx_export, "MAX_ABS_DIFFERENCE", -1.0)
    with pytest.raises(PolicyFileError, match="differ"):
        export_policy(
            TwoPartPolicy(contract, 1), contract, folder / "policy.onnx", one_file_bytes=0
        )
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_where_it_is_cut_off_before_the_last_file_the_older_one_still_loads(folder, monkeypatch):
    contract = load_policy_file(folder / "policy.onnx").contract
    replace = Path.replace

    def cut_off(self, target):
        if Path(target).name == "policy.onnx":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", cut_off)
    policy = TwoPartPolicy(contract, 1)
    with pytest.raises(KeyboardInterrupt):
        export_policy(policy, contract, folder / "policy.onnx", one_file_bytes=0)
    obs = observe()
    arrays = {name: value.numpy() for name, value in obs.items()}
    noise = np.zeros((ROWS, 4, 2), np.float32)
    found = load_policy_file(folder / "policy.onnx").infer({**arrays, "noise": noise})
    with torch.no_grad():
        assert np.abs(found - TwoPartPolicy(contract).mode(obs).numpy()).max() <= 1e-5


# ---------------------------------------------------------------- what is refused


def absent(folder):
    backbone_data(folder).unlink()


def truncated(folder):
    os.truncate(head_data(folder), head_data(folder).stat().st_size - 1)


def longer(folder):
    with head_data(folder).open("ab") as file:
        file.write(b"\0")


def altered(folder):
    path = backbone_data(folder)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def altered_graph(folder):
    path = folder / name_of(folder, "policy_backbone", ".onnx")
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


def swapped(folder):
    one, other = backbone_data(folder), head_data(folder)
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)


def link(folder):
    """The right bytes, but elsewhere."""
    path = backbone_data(folder)
    target = folder.parent / "elsewhere.data"
    path.rename(target)
    path.symlink_to(target)


def pipe(folder):
    path = backbone_data(folder)
    path.unlink()
    os.mkfifo(path)


def subfolder(folder):
    path = backbone_data(folder)
    path.unlink()
    path.mkdir()


def named(name):
    def build(folder):
        (folder.parent / "out.data").write_bytes(backbone_data(folder).read_bytes())

        def change(entries):
            for entry in entries:
                if entry["name"] == backbone_data(folder).name:
                    entry["name"] = name

        relisted(folder, change)

    return build


def entry(**changes):
    return lambda folder: relisted(folder, lambda entries: entries[1].update(changes))


def huge(folder):
    """A sparse file: nothing on the disk, two terabytes for the reader."""
    with backbone_data(folder).open("wb") as file:
        file.truncate(2**41)
    relisted(
        folder,
        lambda entries: [
            {**e, "bytes": 2**41} if e["name"] == backbone_data(folder).name else e
            for e in entries
        ],
    )


def extra(folder):
    """A file that is listed and that no graph uses."""
    data = b"\0" * 64
    (folder / "more.data").write_bytes(data)
    digest = companions.hashlib.sha256(data).hexdigest()
    relisted(
        folder,
        lambda entries: [*entries, {"name": "more.data", "bytes": 64, "sha256": digest}],
    )


def unlisted(folder):
    """A file that the head uses and that is not listed."""
    (folder / "other.data").write_bytes(head_data(folder).read_bytes())
    located(lambda at: {**at, "location": "other.data"})(folder)


def located(change):
    """Alter where the head's first external tensor lies."""

    def build(folder):
        model, _ = listed(folder)
        tensor = next(t for t in model.graph.initializer if t.external_data)
        place = change({entry.key: entry.value for entry in tensor.external_data})
        del tensor.external_data[:]
        for key, value in place.items():
            tensor.external_data.add(key=key, value=value)
        write_sealed(model, folder / "policy.onnx")

    return build


def in_a_node(folder):
    model, _ = listed(folder)
    tensor = next(t for t in model.graph.initializer if t.external_data)
    node = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    model.graph.node.append(node)
    write_sealed(model, folder / "policy.onnx")


def of_another_graph(folder):
    """Weights that both graphs would use."""
    located(lambda at: {**at, "location": backbone_data(folder).name})(folder)


def two_graphs(folder):
    path = folder / name_of(folder, "policy_backbone", ".onnx")
    shutil.copy(path, folder / "second.onnx")
    relisted(folder, lambda e: [*e, {**e[0], "name": "second.onnx"}])


def other_features(folder):
    """A backbone that gives features of another size, with all hashes as they should be."""
    path = folder / name_of(folder, "policy_backbone", ".onnx")
    model = onnx.load(path, load_external_data=False)
    node = next(n for n in model.graph.node if n.output[0] == FEATURES)
    node.output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("Concat", ["before"] * 2, [FEATURES], axis=2))
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_value *= 2
    data = model.SerializeToString()
    path.write_bytes(data)
    digest = companions.hashlib.sha256(data).hexdigest()
    relisted(
        folder,
        lambda entries: [
            {**e, "bytes": len(data), "sha256": digest} if e["name"] == path.name else e
            for e in entries
        ],
    )


HOSTILE = {
    "absent": (absent, r"policy_backbone-\w+\.data: No such file.*copy the policy with all"),
    "truncated": (truncated, r"policy-\w+\.data: \d+ bytes.*copy the policy"),
    "longer": (longer, r"policy-\w+\.data: \d+ bytes"),
    "altered": (altered, r"policy_backbone-\w+\.data: bytes do not match.*copy the policy"),
    "altered_graph": (altered_graph, r"policy_backbone-\w+\.onnx: bytes do not match"),
    "swapped": (swapped, r"\.data: \d+ bytes"),
    "link": (link, r"policy_backbone-\w+\.data: a symbolic link"),
    "pipe": (pipe, r"policy_backbone-\w+\.data: not a file"),
    "subfolder": (subfolder, r"policy_backbone-\w+\.data: not a file"),
    "out_of_the_folder": (named("../out.data"), r"'\.\./out\.data' is not the plain name"),
    "absolute": (named("/etc/passwd"), "'/etc/passwd' is not the plain name"),
    "hidden": (named(".out.data"), "'.out.data' is not the plain name"),
    "with_a_zero": (named("a\0.data"), "is not the plain name"),
    "of_another_kind": (named("out.txt"), "'out.txt' is not the plain name"),
    "renamed": (named("out.data"), r"out\.data: No such file"),
    "negative": (entry(bytes=-1), "of -1 bytes"),
    "no_number": (entry(bytes=True), "of True bytes"),
    "no_digest": (entry(sha256="0" * 63), "with sha256"),
    "more_keys": (entry(url="http://"), "is no entry"),
    "huge": (huge, r"2\d+ bytes of weights.*at most \d+ bytes"),
    "extra": (extra, r"weights \['more.data'\] are used by no graph"),
    "unlisted": (unlisted, r"are used by no graph|'other.data', that is none of the policy's"),
    "of_another_graph": (of_another_graph, "are used by both graphs"),
    "two_graphs": (two_graphs, r"expected one \.onnx"),
    "twice": (lambda f: relisted(f, lambda e: [*e, e[1]]), "each once"),
    "no_list": (lambda f: relisted(f, lambda e: {"a": 1}), "list of companions"),
    "beyond_the_end": (located(lambda at: {**at, "offset": "9999744"}), "gap|overlap|fill"),
    "overlapping": (located(lambda at: {**at, "offset": "4096"}), "overlap or leave a gap"),
    "with_words": (located(lambda at: {**at, "offset": "0x10"}), "lies in .* at"),
    "of_another_length": (located(lambda at: {**at, "length": "4"}), "declares"),
    "with_a_checksum": (located(lambda at: {**at, "checksum": "0"}), "lies in .* at"),
    "in_a_node": (in_a_node, "lies in another file"),
    "other_features": (other_features, "'features' of one shape"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_by_name(folder, name):
    build, named_by = HOSTILE[name]
    build(folder)
    with pytest.raises(PolicyFileError, match=named_by):
        load_policy_file(folder / "policy.onnx")


def test_more_weights_than_allowed_or_than_there_is_memory_are_not_read(folder, monkeypatch):
    def unread(*_):
        raise AssertionError("read")

    monkeypatch.setattr("grpo_ros.export.companion_graphs.read_companion", unread)
    with pytest.raises(PolicyFileError, match="at most 1000 bytes.*raise the limit"):
        load_policy_file(folder / "policy.onnx", max_weight_bytes=1000)
    monkeypatch.setattr("grpo_ros.export.companion_graphs._free_bytes", lambda: 1000)
    with pytest.raises(PolicyFileError, match="1000 free bytes.*more memory"):
        load_policy_file(folder / "policy.onnx")


def test_reading_takes_no_more_memory_than_the_list_says(folder, monkeypatch):
    """A file that grows while it is read is not followed."""
    path = backbone_data(folder)
    size = path.stat().st_size
    monkeypatch.setattr(companions, "BLOCK", 1000)
    data = path.read_bytes()
    listed_as = companions.Companion(path.name, size, companions.hashlib.sha256(data).hexdigest())
    assert companions.read_companion(folder, listed_as).tobytes() == data
    opened = companions._opened

    def opened_and_grown(*arguments):
        descriptor = opened(*arguments)
        with path.open("ab") as file:
            file.write(b"more")
        return descriptor

    monkeypatch.setattr(companions, "_opened", opened_and_grown)
    with pytest.raises(PolicyFileError, match="changing while it is read"):
        companions.read_companion(folder, listed_as)


def test_a_leapp_bundle_of_it_is_refused(folder, tmp_path):
    with pytest.raises(PolicyFileError, match="several files"):
        export_leapp(folder / "policy.onnx", tmp_path / "bundle")


def test_what_was_loaded_does_not_depend_on_the_files_any_more(folder):
    policy = load_policy_file(folder / "policy.onnx")
    obs = policy.zeros()
    before = policy.infer(obs)
    for path in folder.iterdir():
        with path.open("r+b") as file:
            file.truncate(0)
    assert np.array_equal(policy.infer(obs), before)
    assert policy_file.MAX_WEIGHT_BYTES >= 12.6e9  # a GR00T N1.7 in float32
