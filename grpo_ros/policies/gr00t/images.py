"""ImageTransform: cameras' images to the patches that a GR00T's backbone reads."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from grpo_ros.errors import ContractError
from grpo_ros.policies.gr00t.files.image_settings import (
    ImageGeometry,
    ImageProcessorSettings,
    Size,
    crop_size,
    letter_boxed,
    output_size,
    shortest_edge_size,
)
from grpo_ros.policies.gr00t.resampling import bicubic, opencv_area

CHANNELS = 3
WHITE = 255.0


@dataclasses.dataclass(frozen=True)
class Resizing:
    """One step, image @ columns^T and then rows @ image; both (out, in) float64.

    Each product is held to [0, 255]: torch and PIL store bytes after each axis, and what bicubic
    weights overshoot at an edge is cut there.
    """

    rows: Tensor
    columns: Tensor

    @property
    def is_identity(self) -> bool:
        """Whether the step changes nothing."""
        return all(
            matrix.shape[0] == matrix.shape[1]
            and bool((matrix == torch.eye(len(matrix), dtype=matrix.dtype)).all())
            for matrix in (self.rows, self.columns)
        )


class ImageTransform(nn.Module):
    """LeRobot's image geometry, then transformers' Qwen2VLImageProcessor, as fixed operations.

    Resizing is two matrix products per step; the same ones run in training and in an exported
    graph. Nothing is rounded to whole numbers after a product, as the originals do on the CPU.
    Of a pixel's range that makes up to 2/255 in the two steps that checkpoints ask for (resize,
    crop, resize), 2.5/255 where the processor resizes once more, nothing where nothing is resized.

    Attributes:
        grid: rows and columns of patches of an image.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, geometry: ImageGeometry, settings: ImageProcessorSettings, height: int, width: int
    ) -> None:
        """Prepare for images of one size.

        Args:
            geometry, settings: of the checkpoint.
            height, width: of the cameras' images, pixels.

        Raises:
            CheckpointError: the processor refuses images so narrow.
            ContractError: a size is not positive.
        """
        super().__init__()
        if height < 1 or width < 1:
            raise ContractError(f"images of {height} x {width} pixels", expected="positive sizes")
        self.input_size: Size = (height, width)
        self.settings = settings
        self.grid = settings.grid(output_size(geometry, self.input_size))
        steps = resizings(geometry, settings, self.input_size)
        self.num_steps = len(steps)
        for index, step in enumerate(steps):
            self.register_buffer(f"rows_{index}", step.rows.float(), persistent=False)
            self.register_buffer(f"columns_{index}", step.columns.T.float(), persistent=False)
        # Rescaling and normalisation in one, as the processor does it.
        scale = 1.0 / settings.rescale_factor
        for name, values in (("mean", settings.mean), ("std", settings.std)):
            buffer = (torch.tensor(values) * scale).view(CHANNELS, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    @property
    def num_patches(self) -> int:
        """Patches of one image."""
        return self.grid[0] * self.grid[1]

    def forward(self, images: Tensor) -> Tensor:
        """Return the patches (N, V, patches, 3 * repetitions * patch_size^2) float32.

        Patches of a block that becomes one token follow each other; within a patch the order is
        channel, repetition, row, column.

        Args:
            images: (N, V, height, width, 3) uint8, red first.

        Raises:
            ContractError: the images have another shape.
        """
        fits = torch.onnx.is_in_onnx_export() or images.shape[2:] == (*self.input_size, CHANNELS)
        if images.dim() != 5 or not fits:
            raise ContractError(
                f"images of shape {tuple(images.shape)}",
                expected=f"(N, V, {self.input_size[0]}, {self.input_size[1]}, {CHANNELS})",
            )
        pixels = self.resize(images.permute(0, 1, 4, 2, 3).float())
        return self.patches((pixels - self.mean) / self.std)

    def resize(self, pixels: Tensor) -> Tensor:
        """Return (N, V, 3, rows, columns) float32 in [0, 255] from (N, V, 3, height, width)."""
        for index in range(self.num_steps):
            rows = self.get_buffer(f"rows_{index}")
            columns = self.get_buffer(f"columns_{index}")
            pixels = (pixels @ columns).clamp(0.0, WHITE)
            pixels = (rows @ pixels).clamp(0.0, WHITE)
        return pixels

    def patches(self, pixels: Tensor) -> Tensor:
        """Return (N, V, patches, values) from normalised (N, V, 3, rows, columns)."""
        patch, merge = self.settings.patch_size, self.settings.merge_size
        repeats = self.settings.temporal_patch_size
        num_images, num_views = pixels.shape[:2]
        blocks = pixels.reshape(
            num_images * num_views,
            CHANNELS,
            self.grid[0] // merge,
            merge,
            patch,
            self.grid[1] // merge,
            merge,
            patch,
        )
        blocks = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7)
        blocks = blocks.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, repeats, -1, -1)
        return blocks.reshape(num_images, num_views, self.num_patches, self.settings.patch_values)


def resizings(
    geometry: ImageGeometry, settings: ImageProcessorSettings, size: Size
) -> list[Resizing]:
    """Return the steps from a camera's image to the one that is cut into patches.

    Args:
        geometry, settings: of the checkpoint.
        size: (height, width) of the camera's image.
    """
    edge = geometry.shortest_edge
    boxed = letter_boxed(geometry, size)
    if geometry.use_albumentations:
        resized = shortest_edge_size(boxed, edge)
        rows, columns = opencv_area(boxed, resized)
    else:
        resized = (edge, edge)
        rows, columns = (bicubic(a, b) for a, b in zip(boxed, resized, strict=True))
    bars = [(outer - inner) // 2 for outer, inner in zip(boxed, size, strict=True)]
    cropped = crop_size(geometry, resized)
    first = Resizing(
        _part(rows, resized[0], cropped[0], bars[0], size[0]),
        _part(columns, resized[1], cropped[1], bars[1], size[1]),
    )
    result = output_size(geometry, size)
    if geometry.use_albumentations:
        second = Resizing(*opencv_area(cropped, result))
    else:
        second = Resizing(bicubic(cropped[0], result[0]), bicubic(cropped[1], result[1]))
    final = settings.resized(result)
    third = Resizing(bicubic(result[0], final[0]), bicubic(result[1], final[1]))
    return [step for step in (first, second, third) if not step.is_identity]


def _part(matrix: Tensor, resized: int, cropped: int, bar: int, length: int) -> Tensor:
    """Return the rows that the centre crop keeps, and the columns that are not black bars."""
    start = (resized - cropped) // 2
    return matrix[start : start + cropped, bar : bar + length]
