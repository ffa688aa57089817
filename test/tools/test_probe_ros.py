"""tools/probe_ros.py tells a message that works from one that does not."""

import pytest

pytest.importorskip("rclpy")

import probe_ros  # noqa: E402


def test_every_required_message_works_here() -> None:
    assert dict(probe_ros.faults(probe_ros.REQUIRED)) == {}


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("no_such_msgs.msg.Pose", "ModuleNotFoundError"),
        ("std_msgs.msg.NoSuchMessage", "ImportError: no NoSuchMessage in std_msgs.msg"),
    ],
)
def test_a_message_that_is_missing_is_reported(name: str, fault: str) -> None:
    assert fault in (probe_ros.fault_of(name) or "")


def test_a_class_that_cannot_be_serialised_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("std_msgs.msg.String", object)
    assert probe_ros.fault_of("std_msgs.msg.String")


def test_a_missing_optional_message_is_one_line_and_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(probe_ros, "OPTIONAL", {"no_such_msgs.msg.Pose": "no poses"})
    assert probe_ros.main() == 0
    assert capsys.readouterr().out == "optional: this ROS 2 has no no_such_msgs: no poses\n"


def test_a_missing_required_message_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(probe_ros, "REQUIRED", ("no_such_msgs.msg.Pose",))
    assert probe_ros.main() == 1
    assert capsys.readouterr().out.startswith("cannot use no_such_msgs.msg.Pose: ")
