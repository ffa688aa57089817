"""Bags and their parts: whole after every flush, and counted by the numbers of publishers."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from bag_readers import agreed, information, records_of  # noqa: E402

from grpo_ros.nodes.recording.bag_metadata import TopicMetadata  # noqa: E402
from grpo_ros.nodes.recording.bag_writer import BagWriter  # noqa: E402
from grpo_ros.nodes.recording.bags import Bag, BagError, definition  # noqa: E402
from grpo_ros.nodes.recording.intake import Choice  # noqa: E402
from grpo_ros.nodes.recording.sequences import Sequences  # noqa: E402

pytestmark = pytest.mark.ros
BOOL = "std_msgs/msg/Bool"
DATA = b"\0\1\0\0\1"


def writer_of(folder: Path, **limits: float) -> tuple[BagWriter, int, int]:
    writer = BagWriter(folder, {"task": 'of "quotes" and: colons'}, **limits)
    text, digest = definition(BOOL)
    named = [TopicMetadata(name, BOOL, digest, ()) for name in ("/a", "/b")]
    first, second = (writer.add_topic(each, text) for each in named)
    return writer, first, second


def test_a_bag_is_whole_after_every_flush_and_after_its_end(tmp_path: Path) -> None:
    writer, first, second = writer_of(tmp_path / "bag")
    assert agreed(tmp_path / "bag") == []
    for row in range(1, 4):
        writer.write(first, 10 * row, DATA, publish_ns=10 * row - 5, sequence=row)
        writer.write(second, 10 * row, DATA)
        writer.flush()
        assert len(agreed(tmp_path / "bag")) == information(tmp_path / "bag")["message_count"]
        assert len(agreed(tmp_path / "bag")) == 2 * row
    writer.close({"more": "known now"})
    found = agreed(tmp_path / "bag")
    assert [(m.log_ns, m.publish_ns, m.topic, m.sequence) for m in found[:2]] == [
        (10, 5, "/a", 1),
        (11, 11, "/b", 0),
    ]
    with Bag(tmp_path / "bag") as bag:
        assert bag.message_count == 6 and len(list(bag.messages(["/a"]))) == 3
        assert bag.about == {"task": 'of "quotes" and: colons', "more": "known now"}
    assert records_of(tmp_path / "bag" / "bag_0.mcap")["grpo_ros"]["task"].startswith('of "')


def test_what_is_not_flushed_does_not_spoil_what_is(tmp_path: Path) -> None:
    writer, first, _ = writer_of(tmp_path / "bag")
    for row in range(1, 100):
        writer.write(first, row, DATA)
    writer.flush()
    writer.write(first, 1000, DATA)
    writer.abort()
    assert len(agreed(tmp_path / "bag")) == 99


def test_a_disk_that_refuses_leaves_what_was_flushed(tmp_path: Path) -> None:
    writer, first, _ = writer_of(tmp_path / "bag")
    writer.write(first, 1, DATA)
    writer.flush()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        for row in range(1000):
            writer.write(first, 2 + row, DATA)
        with pytest.raises(BagError, match=r"bag_0.mcap: not written: \[Errno 27\].*max_file_mb"):
            writer.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    writer.abort()
    assert len(agreed(tmp_path / "bag")) == 1


def test_a_file_that_is_full_is_followed_by_another(tmp_path: Path) -> None:
    writer, first, second = writer_of(tmp_path / "bag", max_file_bytes=5000)
    for row in range(400):
        writer.write((first, second)[row % 2], row, DATA)
    writer.close()
    files = information(tmp_path / "bag")["files"]
    assert len(files) > 2 and sum(file["message_count"] for file in files) == 400
    assert len(agreed(tmp_path / "bag")) == 400


def test_a_bag_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "bag").mkdir()
    with pytest.raises(BagError, match="bag: there is a bag already.*give another name"):
        writer_of(tmp_path / "bag")


def numbered(*numbers: int, publishers: Callable[[], int] = lambda: 1) -> tuple[int, int]:
    sequences = Sequences(publishers)
    for number in numbers:
        sequences.note(number)
    return sequences.num_missing, sequences.num_before


def test_numbers_that_are_left_out_are_missing_and_those_before_the_first_are_not() -> None:
    assert numbered(1, 2, 3, 4) == (0, 0)
    assert numbered(5, 6, 9, 10, 12) == (3, 4)


def test_two_publishers_are_told_apart_by_their_numbers() -> None:
    both = [number for row in range(20) for number in (100 + row, 1 + row)]
    assert numbered(*both, publishers=lambda: 2) == (0, 99)
    assert numbered(*both[:10], 107, 6, 108, publishers=lambda: 2) == (2, 99)
    assert numbered(50, 51, 1, 2, 3) == (0, 49)  # started again


def test_topics_are_chosen_by_name_and_images_are_left_out() -> None:
    image = "sensor_msgs/msg/Image"
    assert Choice().takes("/tf", BOOL) and not Choice().takes("/camera", image)
    assert Choice(images=True).takes("/camera", image)
    assert not Choice().takes("/arm/_action/status", BOOL)
    assert Choice(hidden=True).takes("/arm/_action/status", BOOL)
    some = Choice(("/arm/*", "/tf"), ("*/noise",))
    assert [t for t in ("/arm/a", "/arm/noise", "/tf", "/tf_static") if some.takes(t, BOOL)] == [
        "/arm/a",
        "/tf",
    ]
