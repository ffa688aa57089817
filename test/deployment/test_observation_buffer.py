"""The observation buffer: by name, complete, fresh, aligned, and never anything unsound."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from deployment_fakes import ARM, FINGER, MS, ROBOT, home, make_contract
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_ros.contract import Contract, ObservationField, Source, Statistics
from grpo_ros.deployment.inputs.observation_buffer import NotReady, ObservationBuffer, Reading
from grpo_ros.errors import ContractError
from grpo_ros.observations import ObservationAssembler

NAMES = (*ARM, FINGER)
STILL = np.zeros(8)
POSE = (0.5, 0.1, 0.02), (0.0, 0.0, 0.6, 0.8)


def filled(stamp_ns: int = 100 * MS) -> ObservationBuffer:
    buffer = ObservationBuffer(make_contract(), ROBOT)
    assert buffer.put_joint_state(stamp_ns, NAMES, home(), STILL)
    assert buffer.put_pose(stamp_ns, "cube", "base", *POSE)
    return buffer


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(8)), st.integers(0, 3))
def test_joints_are_taken_by_name_in_any_order_and_with_strangers(
    order: list[int], num_strangers: int
) -> None:
    buffer = ObservationBuffer(make_contract(), ROBOT)
    names = [NAMES[i] for i in order] + [f"wheel_{i}" for i in range(num_strangers)]
    position = np.append(home()[order], np.full(num_strangers, 7.0))
    assert buffer.put_joint_state(MS, names, position, np.zeros(len(names)))
    buffer.put_pose(MS, "cube", "base", *POSE)
    reading = buffer.read(MS)
    assert isinstance(reading, Reading)
    assert np.array_equal(reading.scene.joints(NAMES)[0].numpy(), home())


def test_arm_and_gripper_may_report_apart() -> None:
    buffer = ObservationBuffer(make_contract(), ROBOT)
    buffer.put_pose(MS, "cube", "base", *POSE)
    buffer.put_joint_state(MS, ARM, home()[:7], STILL[:7])
    missing = buffer.read(MS)
    assert missing == NotReady("missing", f"no position of joint '{FINGER}'")
    buffer.put_joint_state(MS, (FINGER,), home()[7:], np.zeros(0))
    assert isinstance(buffer.read(MS), Reading)


def test_what_is_missing_is_named() -> None:
    answer = ObservationBuffer(make_contract(), ROBOT).read(0)
    assert isinstance(answer, NotReady) and answer.kind == "missing"
    assert "pose of 'cube'" in answer.reason and "joint 'fr3_joint3'" in answer.reason


def test_a_velocity_that_is_needed_and_not_measured_is_missing() -> None:
    buffer = filled()
    fresh = ObservationBuffer(make_contract(), ROBOT)
    fresh.put_joint_state(MS, NAMES, home(), np.zeros(0))
    fresh.put_pose(MS, "cube", "base", *POSE)
    answer = fresh.read(MS)
    assert isinstance(answer, NotReady) and "velocity of joint 'fr3_joint1'" in answer.reason
    assert isinstance(buffer.read(100 * MS), Reading)


def test_stale_future_and_skewed_inputs_are_named() -> None:
    buffer = filled()
    stale = buffer.read(201 * MS)
    assert isinstance(stale, NotReady) and stale.kind == "stale" and "101 ms" in stale.reason
    future = buffer.read(-10 * MS)
    assert isinstance(future, NotReady) and future.kind == "future"
    buffer.put_joint_state(151 * MS, NAMES, home(), STILL)
    skewed = buffer.read(160 * MS)
    assert isinstance(skewed, NotReady) and skewed.kind == "skewed" and "51 ms" in skewed.reason


def test_age_is_that_of_the_oldest_input() -> None:
    buffer = filled()
    buffer.put_joint_state(130 * MS, NAMES, home(), STILL)
    reading = buffer.read(150 * MS)
    assert isinstance(reading, Reading)
    assert reading.age_s == pytest.approx(0.05)
    assert (reading.oldest_ns, reading.newest_ns) == (100 * MS, 130 * MS)


def test_it_is_aligned_only_when_all_inputs_share_a_stamp() -> None:
    buffer = filled()
    assert buffer.aligned_ns() == 100 * MS
    buffer.put_pose(150 * MS, "cube", "base", *POSE)
    assert buffer.aligned_ns() is None
    buffer.put_joint_state(150 * MS, NAMES, home(), STILL)
    assert buffer.aligned_ns() == 150 * MS


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused_and_the_last_good_ones_stay(bad: float) -> None:
    buffer = filled()
    position, speed = home(), STILL.copy()
    position[2] = speed[5] = bad
    assert not buffer.put_joint_state(101 * MS, NAMES, position, STILL)
    assert not buffer.put_joint_state(101 * MS, NAMES, home(), speed)
    assert not buffer.put_pose(101 * MS, "cube", "base", (bad, 0.0, 0.0), POSE[1])
    assert buffer.rejected["not_finite"] == 3
    reading = buffer.read(101 * MS)
    assert isinstance(reading, Reading) and reading.newest_ns == 100 * MS


@pytest.mark.parametrize(
    ("names", "position", "velocity", "kind"),
    [
        (NAMES, home()[:5], STILL, "width"),
        (NAMES, home(), STILL[:3], "width"),
        (NAMES[:7] + NAMES[:1], home(), STILL, "duplicate"),
    ],
)
def test_malformed_joint_states_are_refused(
    names: tuple[str, ...], position: np.ndarray, velocity: np.ndarray, kind: str
) -> None:
    buffer = filled()
    assert not buffer.put_joint_state(101 * MS, names, position, velocity)
    assert buffer.rejected == {kind: 1} and buffer.last_rejection


def test_poses_in_other_frames_or_with_bad_quaternions_are_refused() -> None:
    buffer = filled()
    assert not buffer.put_pose(101 * MS, "cube", "camera", *POSE)
    assert not buffer.put_pose(101 * MS, "cube", "base", POSE[0], (0.0, 0.0, 0.0, 0.0))
    assert not buffer.put_pose(101 * MS, "stranger", "base", *POSE)
    assert buffer.rejected == {"frame": 1, "quaternion": 1}


def test_older_inputs_never_replace_newer_ones() -> None:
    buffer = filled()
    assert not buffer.put_joint_state(99 * MS, NAMES, home() + 1.0, STILL)
    assert not buffer.put_pose(99 * MS, "cube", "base", (9.0, 9.0, 9.0), POSE[1])
    reading = buffer.read(100 * MS)
    assert isinstance(reading, Reading)
    assert np.array_equal(reading.scene.joints(NAMES)[0].numpy(), home())


def test_forgotten_inputs_are_missing_and_older_ones_stay_out() -> None:
    buffer = filled()
    buffer.forget_before(101 * MS)
    assert isinstance(buffer.read(101 * MS), NotReady)
    assert not buffer.put_pose(100 * MS, "cube", "base", *POSE)
    assert buffer.put_pose(101 * MS, "cube", "base", *POSE)
    buffer.clear()
    assert buffer.put_pose(1, "cube", "base", *POSE)


# -------------------------------------------------------------------- stamps and arrivals


@dataclasses.dataclass(frozen=True)
class Message:
    """A joint state: which joints it names in which order, when, with which numbers."""

    joints: tuple[int, ...]
    stamp_ns: int
    value: float


MESSAGES = st.builds(
    Message,
    st.lists(st.integers(0, 7), min_size=1, max_size=8, unique=True).map(tuple),
    st.integers(0, 20).map(lambda n: n * MS),
    st.one_of(st.floats(-3.0, 3.0), st.just(math.nan), st.just(math.inf)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(MESSAGES, max_size=20))
def test_each_joint_holds_its_newest_sound_value_whatever_comes_in_whatever_order(
    sent: list[Message],
) -> None:
    buffer = ObservationBuffer(make_contract(), ROBOT)
    known: dict[int, tuple[int, float]] = {}
    for message in sent:
        count = len(message.joints)
        is_stored = buffer.put_joint_state(
            message.stamp_ns,
            [NAMES[joint] for joint in message.joints],
            np.full(count, message.value),
            np.zeros(count),
        )
        newest = max((known[joint][0] for joint in message.joints if joint in known), default=0)
        assert is_stored == (math.isfinite(message.value) and message.stamp_ns >= newest)
        if is_stored:
            known.update(dict.fromkeys(message.joints, (message.stamp_ns, message.value)))
    ages = buffer.ages(20 * MS)
    for joint, name in enumerate(NAMES):
        stamp_ns, value = known.get(joint, (None, math.nan))
        assert buffer.position([name])[0] == pytest.approx(value, nan_ok=True)
        expected = math.inf if stamp_ns is None else (20 * MS - stamp_ns) / 1e9
        assert ages[f"joint '{name}'"] == pytest.approx(expected)
    assert (
        sum(buffer.rejected.values())
        == len(sent)
        - sum(1 for message in sent if math.isfinite(message.value))
        + buffer.rejected["out_of_order"]
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(-200, 200), st.integers(-200, 200))
def test_a_reading_is_given_only_within_age_skew_and_one_period_ahead(
    joint_ms: int, cube_ms: int
) -> None:
    now = 1000 * MS
    buffer = ObservationBuffer(make_contract(), ROBOT)
    buffer.put_joint_state(now - joint_ms * MS, NAMES, home(), STILL)
    buffer.put_pose(now - cube_ms * MS, "cube", "base", *POSE)
    is_fresh = max(joint_ms, cube_ms) <= 100 and min(joint_ms, cube_ms) >= -50
    is_matched = abs(joint_ms - cube_ms) <= 50
    assert isinstance(buffer.read(now), Reading) == (is_fresh and is_matched)


def test_a_stamp_far_ahead_is_named_and_gives_way_to_an_older_one() -> None:
    buffer = filled()
    assert buffer.put_pose(9000 * MS, "cube", "base", (9.0, 9.0, 9.0), POSE[1])
    assert not buffer.put_pose(101 * MS, "cube", "base", *POSE)
    future = buffer.read(100 * MS)
    assert isinstance(future, NotReady) and future.kind == "future"
    assert future.reason == ("pose of 'cube' is stamped 8900 ms ahead of the clock, at most 50 ms")
    assert buffer.put_pose(102 * MS, "cube", "base", *POSE)
    assert buffer.put_joint_state(9000 * MS, NAMES, home(), STILL)
    assert isinstance(buffer.read(102 * MS), NotReady)
    assert buffer.newest_joint_ns < 0  # so that what comes next is no jump back
    assert buffer.put_joint_state(102 * MS, NAMES, home(), STILL)
    reading = buffer.read(102 * MS)
    assert isinstance(reading, Reading) and reading.newest_ns == 102 * MS


def test_a_stamp_before_time_began_is_refused() -> None:
    buffer = ObservationBuffer(make_contract(), ROBOT)
    assert not buffer.put_pose(-1, "cube", "base", *POSE)
    assert buffer.rejected == {"out_of_order": 1}


def test_an_input_that_brings_nothing_new_is_stale_though_the_clock_stands_still() -> None:
    buffer = ObservationBuffer(make_contract(), ROBOT)
    for arrival_s in (7.0, 7.05, 7.1, 7.15):  # one old stamp, again and again
        buffer.put_joint_state(MS, NAMES, home(), STILL, arrival_s)
        buffer.put_pose(MS, "cube", "base", *POSE, arrival_s)
    assert isinstance(buffer.read(MS), Reading)
    assert isinstance(buffer.read(MS, steady_s=7.1), Reading)
    silent = buffer.read(MS, steady_s=7.125)
    assert isinstance(silent, NotReady) and silent.kind == "stale"
    assert silent.reason == (
        "joint 'fr3_joint1' has brought nothing new for 125 ms, at most 100 ms"
    )
    buffer.put_joint_state(2 * MS, NAMES, home(), STILL, 7.2)
    other = buffer.read(2 * MS, steady_s=7.21)
    assert isinstance(other, NotReady) and "pose of 'cube'" in other.reason
    buffer.put_pose(2 * MS, "cube", "base", *POSE, 7.2)
    assert isinstance(buffer.read(2 * MS, steady_s=7.21), Reading)


def test_a_joint_state_of_strangers_alone_is_not_stored() -> None:
    buffer = filled()
    assert not buffer.put_joint_state(101 * MS, ("wheel",), np.zeros(1), np.zeros(1))
    assert not buffer.rejected


# -------------------------------------------------------------------- images and scans


def seeing(height: int = 4, width: int = 6, encoding: str = "rgb8") -> Contract:
    """Return a contract with a camera and a laser of 4 beams, 2 m in training."""
    camera = Source("camera", ("wrist",), encoding=encoding)
    statistics = Statistics((1.0,) * 4, (1.0,) * 4, (0.1,) * 4, (1.9, 2.0, 2.0, 2.0))
    fields = (
        *make_contract().observation,
        ObservationField("wrist_image", (height, width, 3), camera, "uint8"),
        ObservationField("scan", (4,), Source("scan", ("laser",)), statistics=statistics),
    )
    return make_contract(observation=fields)


def seen(contract: Contract) -> ObservationBuffer:
    buffer = ObservationBuffer(contract, ROBOT)
    buffer.put_joint_state(100 * MS, NAMES, home(), STILL)
    buffer.put_pose(100 * MS, "cube", "base", *POSE)
    return buffer


def test_a_missing_image_and_a_missing_scan_are_named() -> None:
    buffer = seen(seeing())
    assert buffer.read(100 * MS) == NotReady(
        "missing", "no image of camera 'wrist', no scan 'laser'"
    )
    assert buffer.aligned_ns() is None
    assert buffer.ages(100 * MS)["scan 'laser'"] == math.inf


def test_a_stale_image_and_a_stale_scan_are_named_with_age_and_limit() -> None:
    buffer = seen(seeing())
    buffer.put_reading(0, "laser", np.ones(4))
    buffer.put_image(100 * MS, "wrist", np.zeros((4, 6, 3), np.uint8))
    stale = buffer.read(140 * MS)
    assert stale == NotReady("stale", "scan 'laser' is 140 ms old, at most 100 ms")
    buffer.put_reading(190 * MS, "laser", np.ones(4))
    buffer.put_joint_state(200 * MS, NAMES, home(), STILL)
    buffer.put_pose(200 * MS, "cube", "base", *POSE)
    stale = buffer.read(201 * MS)
    assert stale == NotReady("stale", "image of camera 'wrist' is 101 ms old, at most 100 ms")


def test_images_and_scans_reach_the_reading_as_trained_on() -> None:
    contract = seeing(encoding="bgr8")
    buffer = seen(contract)
    image = np.zeros((8, 12, 3), np.uint8)
    image[..., 0] = 200
    assert buffer.put_image(100 * MS, "wrist", image)
    assert buffer.put_reading(100 * MS, "laser", np.array([0.5, math.inf, -math.inf, 2.5]))
    assert buffer.aligned_ns() == 100 * MS
    reading = buffer.read(100 * MS)
    assert isinstance(reading, Reading)
    pixels = reading.images["wrist_image"]
    assert pixels.shape == (1, 4, 6, 3) and pixels.dtype == np.uint8
    assert (pixels[..., 2] == 200).all() and (pixels[..., :2] == 0).all()
    assert reading.scene.reading("laser").tolist() == [[0.5, 2.0, 0.0, 2.0]]


def test_an_image_of_the_same_stamp_replaces_the_one_before() -> None:
    buffer = seen(seeing())
    buffer.put_reading(100 * MS, "laser", np.ones(4))
    for value in (10, 20):
        buffer.put_image(100 * MS, "wrist", np.full((4, 6, 3), value, np.uint8))
        reading = buffer.read(100 * MS)
        assert isinstance(reading, Reading) and (reading.images["wrist_image"] == value).all()


@pytest.mark.parametrize(
    "image", [np.zeros((3, 6, 3), np.uint8), np.zeros((4, 6), np.uint8), np.zeros((4, 6, 3))]
)
def test_images_that_are_too_small_or_no_colour_are_refused(image: np.ndarray) -> None:
    buffer = seen(seeing())
    assert not buffer.put_image(100 * MS, "wrist", image)
    assert buffer.rejected == {"size": 1} and "camera 'wrist'" in buffer.last_rejection
    assert not buffer.put_image(100 * MS, "stranger", image)
    assert buffer.rejected == {"size": 1}


@pytest.mark.parametrize(
    ("ranges", "kind"),
    [
        ([1.0, math.nan, 1.0, 1.0], "not_finite"),
        ([1.0, -0.1, 1.0, 1.0], "range"),
        ([1.0, 1.0, 1.0], "width"),
    ],
)
def test_scans_that_are_malformed_are_refused_by_name(ranges: list[float], kind: str) -> None:
    buffer = seen(seeing())
    assert not buffer.put_reading(100 * MS, "laser", np.array(ranges))
    assert buffer.rejected == {kind: 1} and "scan 'laser'" in buffer.last_rejection


def test_a_beam_that_met_nothing_is_refused_where_the_range_in_training_is_not_known() -> None:
    contract = seeing()
    bare = tuple(dataclasses.replace(f, statistics=None) for f in contract.observation)
    buffer = seen(dataclasses.replace(contract, observation=bare))
    assert buffer.put_reading(100 * MS, "laser", np.array([0.1, 5.0, 1.0, 1.0]))
    assert not buffer.put_reading(101 * MS, "laser", np.array([0.1, math.inf, 1.0, 1.0]))
    assert "beam 1 reads inf m" in buffer.last_rejection


@pytest.mark.parametrize("encoding", ["mono8", "depth"])
def test_an_image_of_an_encoding_that_no_camera_is_converted_to_is_refused(encoding: str) -> None:
    with pytest.raises(ContractError, match="wrist_image.*rgb8"):
        ObservationBuffer(seeing(encoding=encoding), ROBOT)


@pytest.mark.parametrize("kind", ["height", "polar", "yaw", "position", "scan", "camera"])
def test_a_field_of_a_body_or_sensor_that_names_none_is_refused(kind: str) -> None:
    contract = make_contract(observation=(ObservationField("cube", (1,), Source(kind)),))
    with pytest.raises(ContractError, match=f"'cube' has a source '{kind}' of no name"):
        ObservationAssembler(contract, ROBOT, has_images=True)


@pytest.mark.parametrize("kind", ["height", "polar", "yaw", "position"])
def test_every_field_of_a_body_has_its_age_checked(kind: str) -> None:
    field = ObservationField("cube", (1,), Source(kind, ("cube",)))
    buffer = ObservationBuffer(make_contract(observation=(field,)), ROBOT)
    buffer.put_pose(0, "cube", "base", *POSE)
    buffer.put_joint_state(200 * MS, NAMES, home(), STILL)
    stale = buffer.read(200 * MS)
    assert stale == NotReady("stale", "pose of 'cube' is 200 ms old, at most 100 ms")


ANY = st.floats(allow_nan=True, allow_infinity=True)
STAMPS = st.integers(-5, 60).map(lambda n: n * 10 * MS)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("joints"), STAMPS, st.lists(ANY, min_size=8, max_size=8)),
            st.tuples(st.just("pose"), STAMPS, st.lists(ANY, min_size=7, max_size=7)),
            st.tuples(st.just("turned"), STAMPS, st.floats(-math.pi, math.pi)),
            st.tuples(st.just("scan"), STAMPS, st.lists(ANY, min_size=3, max_size=5)),
            st.tuples(st.just("image"), STAMPS, st.integers(1, 9)),
            st.tuples(st.just("clear"), STAMPS, st.none()),
            st.tuples(st.just("forget"), STAMPS, st.none()),
        ),
        max_size=30,
    ),
    STAMPS,
)
def test_whatever_is_sent_a_reading_is_sound_or_the_reason_is_named(
    sent: list[tuple[str, int, object]], now_ns: int
) -> None:
    buffer = seen(seeing())
    buffer.put_image(100 * MS, "wrist", np.zeros((4, 6, 3), np.uint8))
    buffer.put_reading(100 * MS, "laser", np.ones(4))
    for kind, stamp_ns, value in sent:
        match kind:
            case "joints":
                buffer.put_joint_state(stamp_ns, NAMES, np.array(value), np.array(value))
            case "pose":
                buffer.put_pose(stamp_ns, "cube", "base", value[:3], value[3:])
            case "turned":
                turn = (0.0, 0.0, math.sin(value), math.cos(value))
                buffer.put_pose(stamp_ns, "cube", "base", (value, 0.0, 0.0), turn)
            case "scan":
                buffer.put_reading(stamp_ns, "laser", np.array(value))
            case "image":
                buffer.put_image(stamp_ns, "wrist", np.zeros((value, 6, 3), np.uint8))
            case "clear":
                buffer.clear()
            case "forget":
                buffer.forget_before(stamp_ns)
        reading = buffer.read(now_ns)
        if isinstance(reading, NotReady):
            assert "'" in reading.reason
            continue
        scene = reading.scene
        assert scene.joint_position.isfinite().all() and scene.joint_velocity.isfinite().all()
        assert scene.quaternion("cube").norm() == pytest.approx(1.0, abs=1e-3)
        assert scene.position("cube").isfinite().all()
        assert ((scene.reading("laser") >= 0.0) & (scene.reading("laser") <= 2.0)).all()
        assert reading.images["wrist_image"].shape == (1, 4, 6, 3)
        assert -50 * MS <= now_ns - reading.newest_ns <= now_ns - reading.oldest_ns <= 100 * MS
