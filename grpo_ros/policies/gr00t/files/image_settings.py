"""How images become the model's patches: the checkpoint's geometry, the processor's settings.

Sizes are (height, width) in pixels throughout. The rules are those of LeRobot 0.6.1
(lerobot/policies/groot/processor_groot.py, _transform_n1_7_image_for_vlm_*) and of transformers'
Qwen2VLImageProcessor (smart_resize).
"""

from __future__ import annotations

import dataclasses
import math

from grpo_ros.errors import CheckpointError
from grpo_ros.policies.gr00t.files.json_value import JsonValue

Size = tuple[int, int]

DEFAULT_TARGET_SIZE: Size = (256, 256)
DEFAULT_CROP_SIZE: Size = (230, 230)
"""Where the checkpoint does not say: what GR00T N1.7 was trained with."""
MAX_EDGE = 4096
MAX_ASPECT = 200
"""The processor refuses narrower images."""
MAX_SCALE = 1e6
"""Of what pixels are multiplied with or divided by: patches stay finite in float32."""
BICUBIC = 3
"""PIL's number of the one resampling that is supported."""


@dataclasses.dataclass(frozen=True)
class ImageGeometry:
    """From a camera's image to the one that the processor takes.

    Attributes:
        target_size: of the image that comes out.
        crop_fraction: share of height and of width that the centre crop keeps; 1 keeps all.
        shortest_edge: what is resized to before the crop.
        letter_box: black bars make the image square first.
        use_albumentations: OpenCV's INTER_AREA that keeps the aspect, instead of bicubic.
    """

    target_size: Size
    crop_fraction: float
    shortest_edge: int
    letter_box: bool = False
    use_albumentations: bool = False


@dataclasses.dataclass(frozen=True)
class ImageProcessorSettings:
    """What the backbone's image processor does.

    Attributes:
        patch_size: edge of a patch, pixels.
        temporal_patch_size: how often an image is repeated in its patches.
        merge_size: edge, in patches, of the block that becomes one token.
        min_pixels, max_pixels: of an image; others are resized.
        rescale_factor: on bytes, before the mean is taken off.
        mean, std: per channel, of rescaled values.
    """

    patch_size: int
    temporal_patch_size: int
    merge_size: int
    min_pixels: int
    max_pixels: int
    rescale_factor: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def patch_values(self) -> int:
        """Numbers in a patch: channels, repetitions, pixels."""
        return 3 * self.temporal_patch_size * self.patch_size**2

    def resized(self, size: Size) -> Size:
        """Return the size that an image is given: multiples of patch_size * merge_size.

        Raises:
            CheckpointError: the image is too narrow.
        """
        height, width = size
        factor = self.patch_size * self.merge_size
        if max(size) > MAX_ASPECT * min(size):
            raise CheckpointError(
                f"an image of {height} x {width} pixels",
                expected=f"an aspect ratio up to {MAX_ASPECT}",
            )
        rows, columns = round(height / factor) * factor, round(width / factor) * factor
        if rows * columns > self.max_pixels:
            shrink = math.sqrt(height * width / self.max_pixels)
            rows = max(factor, math.floor(height / shrink / factor) * factor)
            columns = max(factor, math.floor(width / shrink / factor) * factor)
        elif rows * columns < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (height * width))
            rows = math.ceil(height * grow / factor) * factor
            columns = math.ceil(width * grow / factor) * factor
        return rows, columns

    def grid(self, size: Size) -> Size:
        """Return rows and columns of patches of an image of this size."""
        rows, columns = self.resized(size)
        return rows // self.patch_size, columns // self.patch_size


def read_geometry(processor: JsonValue) -> ImageGeometry:
    """Return the geometry in processor_config.json's `processor_kwargs`.

    Raises:
        CheckpointError: a value is wrong.
    """
    if processor.has("image_target_size"):
        target = _size(processor["image_target_size"])
        crop = _size(processor["image_crop_size"]) if processor.has("image_crop_size") else None
        edge = processor.optional("shortest_image_edge", target[0]).integer(1, MAX_EDGE)
        fraction = processor.optional(
            "crop_fraction", crop[0] / target[0] if crop else 1.0
        ).number()
    else:
        target, edge = DEFAULT_TARGET_SIZE, DEFAULT_TARGET_SIZE[0]
        fraction = DEFAULT_CROP_SIZE[0] / target[0]
    return ImageGeometry(
        target,
        fraction if 0.0 < fraction < 1.0 else 1.0,
        edge,
        processor.optional("letter_box_transform", False).flag(),
        processor.optional("use_albumentations", False).flag(),
    )


def read_image_processor(settings: JsonValue) -> ImageProcessorSettings:
    """Return the settings in the tokenizer folder's preprocessor_config.json.

    Raises:
        CheckpointError: a value is wrong, or asks for something else than Qwen2VLImageProcessor.
    """
    kind = settings["image_processor_type"]
    if not kind.text().startswith("Qwen2VLImageProcessor"):
        raise kind.refuse(
            "Qwen2VLImageProcessor",
            remedy="give the folder of the backbone's processor, nvidia/Cosmos-Reason2-2B",
        )
    for step in ("do_resize", "do_rescale", "do_normalize"):
        if not settings.optional(step, True).flag():
            raise settings[step].refuse("true")
    if settings.optional("resample", BICUBIC).value != BICUBIC:
        raise settings["resample"].refuse(f"{BICUBIC}, bicubic")
    size = settings["size"]
    return ImageProcessorSettings(
        settings["patch_size"].integer(1, 64),
        settings["temporal_patch_size"].integer(1, 8),
        settings["merge_size"].integer(1, 8),
        size["shortest_edge"].integer(1, MAX_EDGE**2),
        size["longest_edge"].integer(1, MAX_EDGE**2),
        settings.optional("rescale_factor", 1 / 255).number(1 / MAX_SCALE, MAX_SCALE),
        _channels(settings["image_mean"], -MAX_SCALE),
        _channels(settings["image_std"], 1 / MAX_SCALE),
    )


def _size(value: JsonValue) -> Size:
    edges = tuple(item.integer(1, MAX_EDGE) for item in value)
    if len(edges) != 2:
        raise value.refuse("height and width")
    return edges[0], edges[1]


def _channels(value: JsonValue, minimum: float) -> tuple[float, float, float]:
    numbers = tuple(item.number(minimum, MAX_SCALE) for item in value)
    if len(numbers) != 3:
        raise value.refuse("three numbers, one per channel")
    return numbers[0], numbers[1], numbers[2]


def output_size(geometry: ImageGeometry, size: Size) -> Size:
    """Return the size that a camera's image has after the geometry, before the processor.

    Args:
        geometry: of the checkpoint.
        size: of the camera's image.
    """
    if not geometry.use_albumentations:
        return geometry.target_size
    resized = shortest_edge_size(letter_boxed(geometry, size), geometry.shortest_edge)
    return shortest_edge_size(crop_size(geometry, resized), geometry.shortest_edge)


def letter_boxed(geometry: ImageGeometry, size: Size) -> Size:
    """Return the size with black bars, if there are any."""
    return (max(size), max(size)) if geometry.letter_box else size


def crop_size(geometry: ImageGeometry, size: Size) -> Size:
    """Return the size that the centre crop leaves.

    LeRobot rounds where it resizes bicubically, and rounds down where it imitates albumentations.
    """
    whole = int if geometry.use_albumentations else round
    rows, columns = (max(1, whole(edge * geometry.crop_fraction)) for edge in size)
    return rows, columns


def shortest_edge_size(size: Size, edge: int) -> Size:
    """Return the size of the same aspect whose shorter edge is `edge`."""
    shorter = min(size)
    if shorter == edge:
        return size
    rows, columns = (max(1, round(length * (edge / shorter))) for length in size)
    return rows, columns
