"""Whatever a policy file asks for: it is refused by name, in bounded memory and time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import time

import numpy as np
import onnx
import pytest
from hostile import FILES, add_to_action, slow, write_sealed
from onnx import helper, numpy_helper

from grpo_ros.errors import PolicyFileError
from grpo_ros.export.inference_session import MAX_MEMORY, within
from grpo_ros.export.model_limits import MAX_PARTS, count_parts
from grpo_ros.export.onnx_export import export_policy
from grpo_ros.export.policy_file import load_policy_file
from grpo_ros.policies import GaussianConfig, make_policy

MAX_RESIDENT_MB = 1536
"""What refusing any of these files may take above what the process had."""
MAX_SECONDS = 10.0

CHILD = """
    import json, resource, sys, time
    from grpo_ros.errors import PolicyFileError
    from grpo_ros.export.policy_file import load_policy_file

    def peak_mb():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    sound, *paths = sys.argv[1:]
    load_policy_file(sound)
    before, refused = peak_mb(), {}
    limit = 16 * 2**30  # a file that gets through must not take the machine with it
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for path in paths:
        began, peak = time.monotonic(), peak_mb()
        try:
            load_policy_file(path)
            message = ""
        except PolicyFileError as problem:
            message = str(problem)
        refused[path] = (message, time.monotonic() - began, peak_mb() - peak)
    load_policy_file(sound)
    print(json.dumps({"refused": refused, "above_mb": peak_mb() - before}))
"""


@pytest.fixture(scope="module")
def sound(make_contract, tmp_path_factory):
    contract = make_contract()
    path = tmp_path_factory.mktemp("sound") / "policy.onnx"
    export_policy(make_policy(GaussianConfig(hidden=(8,)), contract), contract, path)
    return path


@pytest.fixture(scope="module")
def outcome(sound, tmp_path_factory):
    """What a process of its own says to all of the files, one after the other."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, (build, _) in FILES.items():
        build(sound, folder / f"{name}.onnx")
    paths = [str(folder / f"{name}.onnx") for name in FILES]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(sound), *paths],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return {"folder": folder, **json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize("name", FILES)
def test_it_is_refused_by_name_and_in_time(outcome, name):
    path = str(outcome["folder"] / f"{name}.onnx")
    message, seconds, _ = outcome["refused"][path]
    assert message.startswith(path)
    assert re.search(FILES[name][1], message), message
    assert seconds < MAX_SECONDS


def test_memory_stays_bounded_and_a_sound_policy_still_loads_after_all_of_them(outcome):
    print(f"{outcome['above_mb']:.0f} MB at most above a process with a sound policy")
    assert outcome["above_mb"] < MAX_RESIDENT_MB


def test_what_takes_too_long_is_left_behind_and_said(sound, tmp_path):
    model = onnx.load(sound)
    slow(model)
    path = tmp_path / "slow.onnx"
    write_sealed(model, path)
    code = f"""
        import time
        from grpo_ros.errors import PolicyFileError
        from grpo_ros.export.policy_file import load_policy_file
        began = time.monotonic()
        try:
            load_policy_file({str(path)!r}, deadline_s=1.0)
        except PolicyFileError as problem:
            print(problem)
        print(time.monotonic() - began, time.time())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    message, times = done.stdout.splitlines()
    assert "takes longer than 1 s" in message and "restart this process" in message
    waited_s, ended_at = map(float, times.split())
    assert waited_s < 4.0
    assert time.time() - ended_at < 5.0, "the work left behind holds up the end of the process"


def test_a_graph_that_fails_on_an_input_says_so_and_serves_the_next(sound, tmp_path):
    model = onnx.load(sound)
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array(0), "start"))
    graph.initializer.append(numpy_helper.from_array(np.array(1), "step"))
    graph.initializer.append(numpy_helper.from_array(np.array([-1]), "flat"))
    graph.node.append(helper.make_node("Reshape", ["tip", "flat"], ["row"]))
    graph.node.append(helper.make_node("ReduceMax", ["row"], ["most"], keepdims=0))
    graph.node.append(helper.make_node("Cast", ["most"], ["end"], to=onnx.TensorProto.INT64))
    graph.node.append(helper.make_node("Range", ["start", "end", "step"], ["whole"]))
    graph.node.append(helper.make_node("Cast", ["whole"], ["huge"], to=onnx.TensorProto.FLOAT))
    add_to_action(graph, "huge")
    path = tmp_path / "policy.onnx"
    write_sealed(model, path)
    policy = load_policy_file(path)
    zeros = policy.zeros()
    first = policy.infer(zeros)
    with pytest.raises(PolicyFileError, match="memory"):
        policy.infer({**zeros, "tip": np.full((1, 3), MAX_MEMORY, np.float32)})
    assert np.array_equal(policy.infer(zeros), first)


def test_parts_are_counted_without_parsing(sound):
    assert 100 < count_parts(sound.read_bytes()) < MAX_PARTS / 100


def test_work_within_a_deadline_gives_what_it_gives():
    assert within(10.0, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(10.0, lambda: 1 // 0)
    with pytest.raises(TimeoutError, match="0.05 s"):
        within(0.05, lambda: time.sleep(0.5))
