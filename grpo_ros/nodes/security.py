"""Security policies: what each of our nodes says, hears, serves and asks for, as SROS2 has it.

The policies of config/security are what this module saw of running nodes, and a test compares them
with nodes that run. The same command writes one for a robot, task or namespace of your own, of all
nodes that run in an enclave; see docs/how-to/secure_the_ros_graph.md.

    python -m grpo_ros.nodes.security > my_policy.xml
"""

from __future__ import annotations

import argparse
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rclpy
import rclpy.action
from rclpy.node import Node

from grpo_ros.errors import ConfigurationError
from grpo_ros.nodes.launching import ENCLAVES

VERSION = "0.2.0"
GLOBAL = frozenset(("/clock", "/diagnostics", "/parameter_events", "/rosout", "/tf", "/tf_static"))
"""Topics that nodes name in full, whatever their namespace."""
ACTION = "/_action/"
TOPICS, SERVICES, ACTIONS = "topics", "services", "actions"
EXPRESSIONS = {
    (TOPICS, "publish"): "topic",
    (TOPICS, "subscribe"): "topic",
    (SERVICES, "reply"): "service",
    (SERVICES, "request"): "service",
    (ACTIONS, "execute"): "action",
    (ACTIONS, "call"): "action",
}
"""Kind and right -> the element that names one of them, in the order in which they are written."""

Right = tuple[str, str, str]
"""Kind, right, full name."""
Rights = frozenset[Right]
Policy = dict[str, dict[str, Rights]]
"""Enclave -> full name of a node -> what it may do."""


def observed(node: Any, only: str = ENCLAVES) -> Policy:
    """Return what the nodes that run do.

    Args:
        node: any, to ask the graph.
        only: what the enclaves' paths begin with.
    """
    found: Policy = {}
    for name, namespace, enclave in node.get_node_names_and_namespaces_with_enclaves():
        if enclave.startswith(only):
            rights = _rights_of(node, name, namespace)
            known = found.setdefault(enclave, {})
            full = f"{namespace.rstrip('/')}/{name}"
            known[full] = known.get(full, frozenset()) | rights
    return found


def _rights_of(node: Any, name: str, namespace: str) -> Rights:
    ask = (
        (TOPICS, "publish", node.get_publisher_names_and_types_by_node),
        (TOPICS, "subscribe", node.get_subscriber_names_and_types_by_node),
        (SERVICES, "reply", node.get_service_names_and_types_by_node),
        (SERVICES, "request", node.get_client_names_and_types_by_node),
    )
    found = {
        (kind, right, topic)
        for kind, right, names in ask
        for topic, _ in names(name, namespace)
        if ACTION not in topic
    }
    for right, names in (
        ("execute", rclpy.action.get_action_server_names_and_types_by_node),
        ("call", rclpy.action.get_action_client_names_and_types_by_node),
    ):
        found |= {(ACTIONS, right, action) for action, _ in names(node, name, namespace)}
    return frozenset(found)


def merged(policies: Sequence[Policy]) -> Policy:
    """Return what any of several policies allows."""
    found: Policy = {}
    for policy in policies:
        for enclave, nodes in policy.items():
            known = found.setdefault(enclave, {})
            for name, rights in nodes.items():
                known[name] = known.get(name, frozenset()) | rights
    return found


def to_xml(policy: Mapping[str, Mapping[str, Rights]], about: str = "") -> str:
    """Return a policy as an SROS2 file.

    Args:
        policy: of all enclaves.
        about: a comment.
    """
    root = ET.Element("policy", version=VERSION)
    if about:
        root.append(ET.Comment(f" {about} "))
    enclaves = ET.SubElement(root, "enclaves")
    for path, nodes in sorted(policy.items()):
        profiles = ET.SubElement(ET.SubElement(enclaves, "enclave", path=path), "profiles")
        for full, rights in sorted(nodes.items()):
            namespace, _, name = full.rpartition("/")
            profile = ET.SubElement(profiles, "profile", ns=namespace or "/", node=name)
            for (kind, right), element in EXPRESSIONS.items():
                names = sorted(n for k, r, n in rights if (k, r) == (kind, right))
                if names:
                    group = ET.SubElement(profile, kind, {right: "ALLOW"})
                    for each in names:
                        ET.SubElement(group, element).text = _expression(each, full)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _expression(name: str, node: str) -> str:
    """Return a full name as a policy has it: private, in full, or below the namespace."""
    if name.startswith(f"{node}/"):
        return f"~{name[len(node) :]}"
    below = f"{node.rpartition('/')[0]}/"
    return name if name in GLOBAL or not name.startswith(below) else name[len(below) :]


def _full(expression: str, node: str) -> str:
    if expression.startswith("~/"):
        return f"{node}{expression[1:]}"
    return expression if expression.startswith("/") else f"{node.rpartition('/')[0]}/{expression}"


def read_policy(path: Path) -> Policy:
    """Return the policy in a file.

    Raises:
        ConfigurationError: it is not of the form that SROS2 reads, or denies something.
    """
    try:
        root = ET.parse(path).getroot()
    except (OSError, ET.ParseError) as problem:
        raise ConfigurationError(f"{path}: {problem}", expected="a policy of SROS2") from problem
    _check(path, root, "policy", version=VERSION)
    (enclaves,) = root
    _check(path, enclaves, "enclaves")
    found: Policy = {}
    for enclave in enclaves:
        _check(path, enclave, "enclave", path=enclave.get("path", ""))
        (profiles,) = enclave
        _check(path, profiles, "profiles")
        nodes = found.setdefault(enclave.attrib["path"], {})
        for profile in profiles:
            namespace, name = profile.get("ns", ""), profile.get("node", "")
            _check(path, profile, "profile", ns=namespace, node=name)
            full = f"{namespace.rstrip('/')}/{name}"
            nodes[full] = frozenset(
                (group.tag, right, _full(str(element.text), full))
                for group in profile
                for right in _granted(path, group)
                for element in group
            )
    return found


def _granted(path: Path, group: ET.Element) -> list[str]:
    rights = list(group.attrib)
    expected = EXPRESSIONS.get((group.tag, rights[0])) if len(rights) == 1 else None
    if expected is None or group.attrib[rights[0]] != "ALLOW":
        raise ConfigurationError(
            f"{path}: <{group.tag} {group.attrib}>",
            expected='one right of topics, services or actions, "ALLOW"',
        )
    for element in group:
        _check(path, element, expected)
        if not element.text:
            raise ConfigurationError(f"{path}: an empty <{element.tag}>")
    return rights


def _check(file: Path, element: ET.Element, tag: str, /, **attributes: str) -> None:
    if element.tag != tag or element.attrib != attributes or "" in attributes.values():
        raise ConfigurationError(
            f"{file}: <{element.tag} {element.attrib}>", expected=f"<{tag} {attributes}>"
        )


def main(args: Sequence[str] | None = None) -> int:
    """Write the policy of the nodes that run now to the standard output."""
    parser = argparse.ArgumentParser(prog="security", description=__doc__)
    parser.add_argument("--wait", type=float, default=5.0, help="seconds of discovery")
    parser.add_argument("--enclaves", default=ENCLAVES, help="only those that begin so")
    options = parser.parse_args(args)
    rclpy.init(args=[])
    node = Node("_security", start_parameter_services=False)
    time.sleep(options.wait)
    found = observed(node, options.enclaves)
    sys.stdout.write(to_xml(found))
    node.destroy_node()
    rclpy.try_shutdown()
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
