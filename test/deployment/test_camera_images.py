"""Camera images: every encoding gives the same colours, every size the mean of what it covers."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from grpo_ros.deployment.inputs.camera_images import fit, rgb_from_compressed, rgb_from_raw
from grpo_ros.deployment.inputs.input_refusal import InputRefusal

LAYOUTS = {"rgb8": "rgb", "bgr8": "bgr", "rgba8": "rgba", "bgra8": "bgra"}


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def packed(image: np.ndarray, layout: str, padding: int) -> tuple[np.ndarray, int]:
    """Return the bytes of an image as a driver sends them, and the bytes of a row."""
    height, width, _ = image.shape
    planes = {"r": image[..., 0], "g": image[..., 1], "b": image[..., 2]}
    planes["a"] = np.full((height, width), 77, np.uint8)
    rows = np.stack([planes[letter] for letter in layout], axis=-1).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    return rows.ravel(), rows.shape[1]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(LAYOUTS)), st.integers(1, 9), st.integers(1, 9), st.integers(0, 5))
def test_every_encoding_gives_the_same_colours(
    encoding: str, height: int, width: int, padding: int
) -> None:
    image = picture(height, width)
    data, step = packed(image, LAYOUTS[encoding], padding)
    assert np.array_equal(rgb_from_raw(encoding, height, width, step, data), image)


def test_grey_becomes_equal_red_green_and_blue() -> None:
    grey = np.arange(6, dtype=np.uint8)
    image = rgb_from_raw("mono8", 2, 3, 3, grey)
    assert image.shape == (2, 3, 3)
    assert all(np.array_equal(image[..., c], grey.reshape(2, 3)) for c in range(3))


@pytest.mark.parametrize(
    ("encoding", "height", "width", "step", "num_bytes", "kind"),
    [
        ("16UC1", 2, 2, 4, 8, "encoding"),
        ("8UC3", 2, 2, 6, 12, "encoding"),
        ("rgb8", 2, 2, 5, 12, "size"),
        ("rgb8", 2, 2, 6, 11, "size"),
        ("rgb8", 0, 2, 6, 12, "size"),
    ],
)
def test_images_that_contradict_themselves_are_refused(
    encoding: str, height: int, width: int, step: int, num_bytes: int, kind: str
) -> None:
    with pytest.raises(InputRefusal) as refusal:
        rgb_from_raw(encoding, height, width, step, np.zeros(num_bytes, np.uint8))
    assert refusal.value.kind == kind


def compressed(image: np.ndarray, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def test_png_is_exact_and_jpeg_is_near() -> None:
    image = picture(16, 24)
    assert np.array_equal(rgb_from_compressed(compressed(image, "PNG")), image)
    smooth = np.broadcast_to(np.linspace(0, 255, 24)[None, :, None], (16, 24, 3)).astype(np.uint8)
    near = rgb_from_compressed(
        compressed(smooth, "JPEG", quality=95), "rgb8; jpeg compressed bgr8"
    )
    assert np.abs(near.astype(int) - smooth).max() <= 6


def test_red_stays_red_through_jpeg() -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    image = rgb_from_compressed(compressed(red, "JPEG", quality=95))
    assert image[..., 0].min() > 240 and image[..., 1:].max() < 15


def test_grey_and_transparent_png_become_colour() -> None:
    grey = picture(5, 7)[..., 0]
    assert np.array_equal(
        rgb_from_compressed(compressed(grey, "PNG")), np.repeat(grey[..., None], 3, -1)
    )
    rgba = np.concatenate([picture(5, 7), np.full((5, 7, 1), 9, np.uint8)], axis=-1)
    assert np.array_equal(rgb_from_compressed(compressed(rgba, "PNG")), rgba[..., :3])


@pytest.mark.parametrize(
    ("data", "description", "kind"),
    [
        (b"", "jpeg", "encoding"),
        (b"not an image", "jpeg", "encoding"),
        (compressed(picture(64, 64), "JPEG")[:200], "jpeg", "encoding"),
        (compressed(picture(64, 64), "PNG")[:200], "png", "encoding"),
        (compressed(picture(4, 4), "BMP"), "bmp", "encoding"),
        (compressed(picture(4, 4), "PNG"), "16UC1; compressedDepth png", "encoding"),
        (compressed(np.zeros((4, 4), np.uint16), "PNG"), "png", "encoding"),
        (compressed(np.zeros((4100, 4100), np.uint8), "PNG"), "png", "size"),
    ],
)
def test_files_that_are_damaged_foreign_or_huge_are_refused(
    data: bytes, description: str, kind: str
) -> None:
    with pytest.raises(InputRefusal) as refusal:
        rgb_from_compressed(data, description)
    assert refusal.value.kind == kind


# -------------------------------------------------------------------- size


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 8), st.integers(0, 99))
def test_a_whole_multiple_gives_the_mean_of_whole_pixels(
    height: int, width: int, factor: int, seed: int
) -> None:
    image = picture(height * factor, width * factor, seed)
    blocks = image.reshape(height, factor, width, factor, 3).astype(np.float64)
    assert np.abs(fit(image, height, width) - blocks.mean(axis=(1, 3))).max() <= 1.0


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 30), st.integers(0, 30))
def test_any_other_size_gives_the_mean_of_the_pixels_whose_centres_are_covered(
    height: int, width: int, more_rows: int, more_columns: int
) -> None:
    image = picture(height + more_rows, width + more_columns)
    rows, columns = _cut(image.shape[0], image.shape[1], height, width)
    cut = image[rows, columns].astype(np.float64)
    assume(not _has_tie(cut.shape[0], height) and not _has_tie(cut.shape[1], width))
    across = (
        _shares(cut.shape[0], height) @ cut.transpose(2, 0, 1) @ _shares(cut.shape[1], width).T
    )
    expected = across.transpose(1, 2, 0)
    assert np.abs(fit(image, height, width) - expected).max() <= 1.0


def _has_tie(num: int, wanted: int) -> bool:
    """Whether a centre lies between two wanted pixels, and belongs to either."""
    return any(2 * i * num % (2 * wanted) == wanted for i in range(1, wanted))


def _cut(rows: int, columns: int, height: int, width: int) -> tuple[slice, slice]:
    """Return the largest window of the aspect ratio, in the middle."""
    cut_rows, cut_columns = rows, columns
    if columns / rows > width / height:
        cut_columns = int(np.floor(rows * width / height + 0.5))
    else:
        cut_rows = int(np.floor(columns * height / width + 0.5))
    top, left = (rows - cut_rows) // 2, (columns - cut_columns) // 2
    return slice(top, top + cut_rows), slice(left, left + cut_columns)


def _shares(given: int, wanted: int) -> np.ndarray:
    """Return the weight (wanted, given) of each given pixel in each wanted one."""
    centre = np.arange(given) + 0.5
    edge = np.arange(wanted + 1) * given / wanted
    is_covered = (centre[None] > edge[:-1, None]) & (centre[None] <= edge[1:, None])
    return is_covered / is_covered.sum(axis=1, keepdims=True)


def test_the_middle_is_cut_out_not_squeezed() -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, 8:56] = 255  # the middle square
    assert (fit(image, 12, 12) == 255).all()
    assert (fit(image.transpose(1, 0, 2), 12, 12) == 255).all()


def test_an_image_of_the_trained_size_passes_unchanged() -> None:
    image = picture(7, 5)
    assert np.array_equal(fit(image, 7, 5), image)


@pytest.mark.parametrize(("rows", "columns"), [(7, 20), (20, 7)])
def test_a_smaller_image_is_refused_and_both_sizes_are_named(rows: int, columns: int) -> None:
    with pytest.raises(InputRefusal, match=f"{columns}x{rows} pixels.*8x8"):
        fit(picture(rows, columns), 8, 8)
