"""Answers of simulation_interfaces: result codes of refusals, and callbacks that always answer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from simulation_interfaces.msg import Result

from grpo_ros.deployment.simulation.refusal import Refusal
from grpo_ros.nodes.shared.lifecycle import guarded

FAILED = "RESULT_OPERATION_FAILED"


def answer_with(response: Any, refusal: Refusal | None, note: str = "") -> None:
    """Write the outcome of a request into a response that has a `result`.

    Args:
        refusal: None where the request was carried out. Its code is a constant of the response,
            or of Result.
        note: what the caller may want to know all the same.
    """
    if refusal is None:
        response.result.result = Result.RESULT_OK
        response.result.error_message = note
        return
    code = getattr(response, refusal.code, None)
    response.result.result = getattr(Result, refusal.code) if code is None else code
    response.result.error_message = str(refusal)


def refusal_of(node: Any, where: str, problem: Exception) -> Refusal:
    """Return an exception as a refusal; one that is not a refusal is logged and reported."""
    if isinstance(problem, Refusal):
        return problem

    def raise_it() -> None:
        raise problem

    guarded(node, where, raise_it)()
    return Refusal(FAILED, f"{type(problem).__name__}: {problem}")


def answering(
    node: Any, where: str, callback: Callable[[Any, Any], None]
) -> Callable[[Any, Any], Any]:
    """Return a service callback that fills in the response, and answers whatever goes wrong."""

    @functools.wraps(callback)
    def call(request: Any, response: Any) -> Any:
        try:
            callback(request, response)
        except Exception as problem:  # nothing that a peer sends may kill the node
            answer_with(response, refusal_of(node, where, problem))
        return response

    return call
