"""A policy in several files, opened: all of them judged before any graph is made a session.

Files are looked at from the cheapest check on: names, sizes, the backbone's graph, which tensor
lies where; weights are read last, and only those of one graph at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from grpo_ros.errors import PolicyFileError
from grpo_ros.export.chained_session import ChainedSession
from grpo_ros.export.companions import Companion, check_present, read_companion
from grpo_ros.export.graph_file import ONLY_EXPORTED, check_graph_of, parse_graph
from grpo_ros.export.inference_session import open_session
from grpo_ros.export.model_limits import external_files


def open_in_parts(
    path: Path,
    model: Any,
    data: bytes,
    companions: Sequence[Companion],
    max_bytes: int,
    max_weight_bytes: int,
) -> Callable[[Sequence[str]], Any]:
    """Return what opens the policy on the providers that it is given, once its graphs are judged.

    Args:
        path: of the policy file. model, data: the head, parsed, and its bytes.
        companions: as the file lists them.
        max_bytes: of the backbone's graph. max_weight_bytes: of all weights.

    Raises:
        PolicyFileError: a companion is absent, no plain file, too large, or not what is listed;
            a tensor lies elsewhere. What is returned raises it where weights are not those listed,
            or where the graphs do not fit together.
    """
    folder = path.resolve().parent
    graph = next(companion for companion in companions if companion.is_graph)
    files = {c.name: c.num_bytes for c in companions if not c.is_graph}
    _check_room(path, graph, files, max_bytes, max_weight_bytes)
    check_present(folder, companions)
    backbone_data = read_companion(folder, graph).tobytes()
    backbone = parse_graph(folder / graph.name, backbone_data)
    locations = {True: external_files(model), False: external_files(backbone)}
    shared = locations[True] & locations[False]
    unused = files.keys() - locations[True] - locations[False]
    if shared or unused:
        raise PolicyFileError(
            f"{path}: weights {sorted(shared or unused)} are used by {'both' if shared else 'no'} "
            f"graph{'s' if shared else ''}",
            expected="every file of weights to belong to one graph",
            remedy=ONLY_EXPORTED,
        )
    for place, part, is_head in ((path, model, True), (folder / graph.name, backbone, False)):
        check_graph_of(place, part, {n: files[n] for n in locations[is_head] & files.keys()})

    def opened(graph_data: bytes, is_head: bool, providers: Sequence[str]) -> Any:
        named = [c for c in companions if c.name in locations[is_head]]
        weights = {c.name: read_companion(folder, c) for c in named}
        return open_session(graph_data, providers, weights)

    return lambda providers: ChainedSession(
        path, opened(backbone_data, False, providers), opened(data, True, providers)
    )


def _check_room(
    path: Path, graph: Companion, files: Mapping[str, int], max_bytes: int, max_weight_bytes: int
) -> None:
    """Raise PolicyFileError where companions are larger than they may be, or than the memory."""
    if graph.num_bytes > max_bytes:
        raise PolicyFileError(
            f"{path.with_name(graph.name)}: {graph.num_bytes} bytes, larger than {max_bytes}",
            expected="a graph whose weights lie beside it",
            remedy=ONLY_EXPORTED,
        )
    whole = sum(files.values())
    needed = whole + max(files.values(), default=0)
    free = _free_bytes()
    if whole > max_weight_bytes or (free is not None and needed > free):
        limits = f"at most {max_weight_bytes}" if whole > max_weight_bytes else f"{free} free"
        raise PolicyFileError(
            f"{path}: {whole} bytes of weights in {sorted(files)}, which take {needed} to load",
            expected=f"{limits} bytes",
            remedy="use a machine with more memory, or raise the limit if it is meant to be so "
            "large",
        )


def _free_bytes() -> int | None:
    """Return the bytes that Linux would give; None where it does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return None
