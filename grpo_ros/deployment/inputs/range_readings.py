"""Range readings: from what a laser sends to the beams that a policy was trained on."""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from grpo_ros.deployment.inputs.input_refusal import InputRefusal

Array = npt.NDArray[np.float64]
TOLERANCE = 1e-3
"""Of beams, in increments, and of ranges, relative: drivers compute in single precision."""
NOISE_SHARE = 0.05
"""How far, relative, noise in training may have made readings exceed the range."""


@functools.lru_cache(maxsize=16)
def nearest_beams(
    angle_min: float, increment: float, num_given: int, num_wanted: int, turn: float = 0.0
) -> npt.NDArray[np.int64]:
    """Return the given beam (num_wanted,) that is nearest to each wanted one.

    Wanted beam i points at 2 pi i / num_wanted from the base's heading, given beam k at
    turn + angle_min + k * increment. A beam stands for the wanted one where it is no further than
    half an increment away, and increments are no coarser than what is wanted.

    Args:
        angle_min, increment: rad; a negative increment goes clockwise.
        num_given, num_wanted: numbers of beams.
        turn: the sensor's yaw on the base, rad.

    Raises:
        InputRefusal: the layout makes no sense, is coarser, or does not look everywhere.
    """
    finest = 2.0 * math.pi / num_wanted
    if not (math.isfinite(angle_min) and abs(increment) > 0.0 and num_given > 0):
        raise InputRefusal(
            "layout", f"{num_given} beams from {angle_min} rad in steps of {increment} rad"
        )
    if not abs(increment) <= finest * (1.0 + TOLERANCE):
        raise InputRefusal(
            "layout",
            f"beams {abs(increment):.4f} rad apart",
            expected=f"at most {finest:.4f} rad, {num_wanted} beams all around",
        )
    whole_turn = 2.0 * math.pi / abs(increment)
    wanted = finest * np.arange(num_wanted) - turn - angle_min
    place = np.mod(wanted / increment, whole_turn)
    index = np.clip(np.rint(place), 0, num_given - 1)
    to_first = whole_turn - place
    distance = np.abs(place - index)
    index = np.where(to_first < distance, 0, index).astype(np.int64)
    distance = np.minimum(distance, to_first)
    if distance.max() > 0.5 + TOLERANCE:
        beam = int(distance.argmax())
        raise InputRefusal(
            "layout",
            f"no beam near {finest * beam:.3f} rad from the heading",
            expected=f"{num_wanted} beams all around",
            remedy="the policy was trained with a laser that looks everywhere",
        )
    index.flags.writeable = False
    return index


def read_ranges(
    ranges: Array, range_min: float, range_max: float, trained_range: float | None
) -> Array:
    """Return ranges (n,) in m in which inf means that nothing was met, as REP 117 has it.

    Args:
        ranges: (n,) as the driver sent them; -inf is what is too near to be measured.
        range_min, range_max: what the driver says that it can measure, m.
        trained_range: what a beam that met nothing read in training, m; None: not known.

    Raises:
        InputRefusal: the sensor sees less far than in training, or a reading is below range_min,
            where it is neither a distance nor REP 117's mark.
    """
    if not range_min <= range_max:
        raise InputRefusal("range", f"range_min {range_min} m, range_max {range_max} m")
    if trained_range is not None and range_max < trained_range * (1.0 - NOISE_SHARE):
        raise InputRefusal(
            "range",
            f"the sensor sees {range_max:.2f} m far",
            expected=f"the {trained_range:.2f} m that the policy was trained with",
        )
    is_below = (ranges < range_min * (1.0 - TOLERANCE)) & np.isfinite(ranges)
    if is_below.any():
        beam = int(is_below.argmax())
        raise InputRefusal(
            "range",
            f"beam {beam} reads {ranges[beam]} m, below range_min {range_min} m",
            expected="a distance, inf for nothing met, or -inf for too near (REP 117)",
        )
    return np.where(ranges > range_max, np.inf, ranges)


def clipped(ranges: Array, num_beams: int, limit: float | None) -> Array:
    """Return ranges (num_beams,) clipped to [0, limit]; -inf, too near, becomes 0.

    Args:
        ranges: (n,) m, inf where nothing was met.
        num_beams: as in training.
        limit: what a beam that met nothing read in training, m; None: not known.

    Raises:
        InputRefusal: another number of beams, NaN, a negative distance, or a beam that met
            nothing where it is not known what that reads.
    """
    if ranges.shape != (num_beams,):
        raise InputRefusal("width", f"{ranges.size} beams", expected=str(num_beams))
    is_bad = np.isnan(ranges) | (np.isfinite(ranges) & (ranges < 0.0))
    if limit is None:
        is_bad |= np.isinf(ranges)
    if is_bad.any():
        beam = int(is_bad.argmax())
        raise InputRefusal(
            "not_finite" if np.isnan(ranges[beam]) else "range",
            f"beam {beam} reads {ranges[beam]} m",
            expected="a distance" if limit is None else "a distance, inf or -inf",
            remedy="the contract does not state the range in training" if limit is None else "",
        )
    return np.clip(ranges, 0.0, np.inf if limit is None else limit)
