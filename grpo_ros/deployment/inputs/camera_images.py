"""Camera images: from what a camera sends to the pixels that a policy was trained on."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from grpo_ros.deployment.inputs.input_refusal import InputRefusal
from grpo_ros.deployment.inputs.required_inputs import ImageField

Pixels = npt.NDArray[np.uint8]
CHANNELS = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
}
"""Encoding -> bytes per pixel, and which of them are red, green and blue."""
MAX_PIXELS = 4096 * 4096
"""A larger compressed image is not unpacked: a small file may hold any number of pixels."""
DEPTH_FORMAT = "compressedDepth"


def rgb_from_raw(encoding: str, height: int, width: int, step: int, data: Pixels) -> Pixels:
    """Return the (height, width, 3) red, green, blue pixels of a raw image; alpha is dropped.

    Args:
        encoding: a key of `CHANNELS`.
        height, width: pixels. step: bytes from one row to the next.
        data: (B,) uint8, at least height * step.

    Raises:
        InputRefusal: another encoding, or sizes that contradict each other.
    """
    if encoding not in CHANNELS:
        raise InputRefusal(
            "encoding", f"encoding '{encoding}'", expected=f"one of {', '.join(CHANNELS)}"
        )
    num_channels, order = CHANNELS[encoding]
    if height < 1 or width < 1 or step < width * num_channels or len(data) < height * step:
        raise InputRefusal(
            "size",
            f"{len(data)} bytes for {width}x{height} pixels of {encoding} in rows of {step} bytes",
            expected=f"rows of at least {width * num_channels} bytes, and all of them",
        )
    rows = data[: height * step].reshape(height, step)[:, : width * num_channels]
    pixels = rows.reshape(height, width, num_channels)
    return pixels if encoding == "rgb8" else pixels[..., list(order)]


def rgb_from_compressed(data: bytes, description: str = "") -> Pixels:
    """Return the (H, W, 3) red, green, blue pixels of a JPEG or PNG file.

    Args:
        data: the file; a camera's orientation marks in it are not followed.
        description: what the sender calls the format.

    Raises:
        InputRefusal: it is damaged, too large, of another format, or no 8-bit image.
    """
    if DEPTH_FORMAT in description:
        raise InputRefusal(
            "encoding", f"format '{description}'", expected="a colour or grey image"
        )
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputRefusal(
                    "size",
                    f"{image.width}x{image.height} pixels",
                    expected=f"at most {MAX_PIXELS}",
                )
            if image.mode not in ("RGB", "RGBA", "L"):
                raise InputRefusal(
                    "encoding",
                    f"{image.format} of mode '{image.mode}'",
                    expected="8-bit colour or grey",
                )
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as problem:
        raise InputRefusal(
            "encoding",
            f"{len(data)} bytes of format '{description}' cannot be unpacked ({problem})",
            expected="a JPEG or PNG file",
        ) from problem


def fit(image: Pixels, height: int, width: int) -> Pixels:
    """Return the image in the size that a policy was trained on, (height, width, 3) uint8.

    The middle of the image is cut out with the wanted aspect ratio. Then each pixel is the mean
    of the area that it covers where the cut is a whole multiple of the size, else of the pixels
    whose centres it covers (Pillow's BOX).

    Args:
        image: (H, W, 3) uint8.
        height, width: wanted.

    Raises:
        InputRefusal: the image is smaller.
    """
    rows, columns = fit_window(image.shape[0], image.shape[1], height, width)
    cut = np.ascontiguousarray(image[rows, columns])
    cut_height, cut_width = cut.shape[:2]
    if (cut_height, cut_width) == (height, width):
        return cut
    picture = Image.fromarray(cut)
    factor = cut_height // height
    if (cut_height, cut_width) == (factor * height, factor * width):
        return np.asarray(picture.reduce(factor))
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX))


def fit_window(
    image_height: int, image_width: int, height: int, width: int
) -> tuple[slice, slice]:
    """Return rows and columns of the part of an image that has the wanted aspect ratio.

    Raises:
        InputRefusal: the image has fewer rows or columns than wanted.
    """
    if image_height < height or image_width < width:
        raise InputRefusal(
            "size",
            f"{image_width}x{image_height} pixels",
            expected=f"at least the {width}x{height} that the policy was trained on",
        )
    cut_height, cut_width = image_height, image_width
    if image_width * height > image_height * width:
        cut_width = (2 * image_height * width + height) // (2 * height)
    else:
        cut_height = (2 * image_width * height + width) // (2 * width)
    top, left = (image_height - cut_height) // 2, (image_width - cut_width) // 2
    return slice(top, top + cut_height), slice(left, left + cut_width)


class ImageFits:
    """Brings images to the sizes that a policy was trained on, each once.

    Args:
        fields: what the policy sees.
    """

    def __init__(self, fields: Sequence[ImageField]) -> None:
        self._fields = tuple(fields)
        self._fitted: dict[str, tuple[Pixels, Pixels]] = {}

    def check(self, camera: str, image: Pixels) -> None:
        """Raise InputRefusal where a camera's image does not fit one of its fields."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InputRefusal(
                "size", f"{image.dtype} {list(image.shape)}", expected="uint8 [height, width, 3]"
            )
        for field in self._fields:
            if field.camera == camera:
                fit_window(image.shape[0], image.shape[1], field.height, field.width)

    def fitted(self, images: Mapping[str, Pixels]) -> dict[str, Pixels]:
        """Return field -> (1, height, width, 3) uint8 in the channel order of training.

        Args:
            images: camera -> (H, W, 3) uint8 red, green, blue, for which `check` passed.
        """
        for field in self._fields:
            image, known = images[field.camera], self._fitted.get(field.name)
            if known is None or known[0] is not image:
                pixels = fit(image, field.height, field.width)
                ordered = pixels[..., ::-1] if field.is_bgr else pixels
                self._fitted[field.name] = image, np.ascontiguousarray(ordered)[None]
        return {name: pixels for name, (_, pixels) in self._fitted.items()}
