"""Resizing as a matrix: each output pixel is a fixed weighted sum of input pixels, per axis."""

from __future__ import annotations

import torch
from torch import Tensor


def bicubic(length: int, resized: int) -> Tensor:
    """Return the matrix (resized, length) float64 of torch's antialiased bicubic resizing.

    The columns are what torch.nn.functional.interpolate makes of the unit vectors.
    """
    if length == resized:
        return torch.eye(length, dtype=torch.float64)
    unit = torch.eye(length, dtype=torch.float64)[None, None]
    matrix = torch.nn.functional.interpolate(
        unit, size=(resized, length), mode="bicubic", antialias=True, align_corners=False
    )
    return matrix[0, 0]


def area(length: int, resized: int) -> Tensor:
    """Return the matrix (resized, length) float64 that averages over each output pixel's area.

    Output pixel i covers [i, i + 1) * length / resized; an input pixel counts by its share of
    that. It is OpenCV's INTER_AREA for `resized <= length`.
    """
    scale = length / resized
    start = torch.arange(resized, dtype=torch.float64)[:, None] * scale
    pixel = torch.arange(length, dtype=torch.float64)[None]
    overlap = torch.minimum(start + scale, pixel + 1.0) - torch.maximum(start, pixel)
    overlap = overlap.clamp(min=0.0)
    return overlap / overlap.sum(dim=1, keepdim=True)


def area_enlarged(length: int, resized: int) -> Tensor:
    """Return the matrix (resized, length) float64 of OpenCV's INTER_AREA where it enlarges.

    Output pixel i lies within input pixel j = floor(i length / resized), and is blended with the
    next by f = max(0, i + 1 - (j + 1) resized / length), its fraction alone: the part of it that
    reaches over the border (OpenCV, resize.cpp, `area_mode`).
    """
    index = torch.arange(resized, dtype=torch.float64)
    scale = resized / length
    first = (index / scale).floor()
    share = (index + 1.0) - (first + 1.0) * scale
    share = torch.where(share <= 0.0, torch.zeros_like(share), share - share.floor())
    last = length - 1
    near = first.clamp(max=last).long()
    matrix = torch.zeros(resized, length, dtype=torch.float64)
    rows = torch.arange(resized)
    matrix[rows, near] += 1.0 - share
    matrix[rows, (near + 1).clamp(max=last)] += share
    return matrix


def opencv_area(size: tuple[int, int], resized: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the matrices of both axes of OpenCV's INTER_AREA.

    It averages only where neither axis is enlarged.
    """
    shrinks = size[0] >= resized[0] and size[1] >= resized[1]
    make = area if shrinks else area_enlarged
    return make(size[0], resized[0]), make(size[1], resized[1])
