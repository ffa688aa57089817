"""Patches of images: those of LeRobot's transform and of the backbone's own processor."""

import io

import numpy as np
import pytest
import torch
from gr00t_helpers import require_gr00t

from grpo_ros.errors import CheckpointError, ContractError
from grpo_ros.policies.gr00t.files.image_settings import ImageGeometry, ImageProcessorSettings
from grpo_ros.policies.gr00t.images import ImageTransform
from grpo_ros.policies.gr00t.resampling import area, area_enlarged, bicubic, opencv_area

SETTINGS = ImageProcessorSettings(
    16, 2, 2, 32 * 32, 256 * 256, 1 / 255, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
)
PIXEL_STD = torch.tensor(SETTINGS.std).repeat_interleave(2 * 16 * 16)
CROPPED = ImageGeometry((64, 64), 58 / 64, 64)
REAL = ImageGeometry((256, 256), 230 / 256, 256)


def pictures(height, width):
    """Noise, black and white noise, hard edges, and a smooth picture: (V, H, W, 3) uint8."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (height, width, 3), generator=generator)
    bits = torch.randint(0, 2, (height, width, 3), generator=generator) * 255
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    edges = ((y // 7 + x // 5) % 2 * 255)[..., None].expand(-1, -1, 3)
    smooth = ((torch.sin(y / 11) + torch.cos(x / 9)) * 60 + 128)[..., None].expand(-1, -1, 3)
    return torch.stack([noise, bits, edges, smooth]).to(torch.uint8)


def reference(geometry, image):
    """Return patches (P, values) and grid of one image (H, W, 3), as LeRobot makes them."""
    require_gr00t()
    from lerobot.policies.groot import processor_groot
    from transformers import Qwen2VLImageProcessor

    settings = {
        "image_crop_size": None,
        "image_target_size": list(geometry.target_size),
        "shortest_image_edge": geometry.shortest_edge,
        "crop_fraction": geometry.crop_fraction,
        "letter_box_transform": geometry.letter_box,
    }
    if geometry.use_albumentations:
        make = processor_groot._transform_n1_7_image_for_vlm_albumentations
        resized = np.ascontiguousarray(make(image.numpy(), **settings))
        resized = torch.from_numpy(resized).permute(2, 0, 1)
    else:
        make = processor_groot._transform_n1_7_image_for_vlm_torch
        resized = make(image.permute(2, 0, 1).contiguous(), **settings)
    processor = Qwen2VLImageProcessor(
        patch_size=SETTINGS.patch_size,
        temporal_patch_size=SETTINGS.temporal_patch_size,
        merge_size=SETTINGS.merge_size,
        min_pixels=SETTINGS.min_pixels,
        max_pixels=SETTINGS.max_pixels,
        image_mean=list(SETTINGS.mean),
        image_std=list(SETTINGS.std),
    )
    encoded = processor(images=[resized], return_tensors="pt")
    return encoded["pixel_values"], tuple(encoded["image_grid_thw"][0, 1:].tolist())


@pytest.mark.parametrize(
    ("geometry", "height", "width", "levels"),
    [
        (CROPPED, 180, 240, 2.0),  # reduced, cropped, enlarged
        (CROPPED, 64, 64, 2.0),  # cropped, enlarged
        (REAL, 480, 640, 2.0),
        (REAL, 96, 96, 2.0),  # enlarged twice
        (ImageGeometry((64, 64), 58 / 64, 64, letter_box=True), 180, 240, 2.0),
        (ImageGeometry((64, 64), 58 / 64, 64, letter_box=True), 240, 181, 2.0),
        (ImageGeometry((80, 100), 0.9, 90), 180, 240, 2.5),  # and once more by the processor
        (ImageGeometry((256, 256), 230 / 256, 256, use_albumentations=True), 512, 512, 2.0),
        (ImageGeometry((256, 256), 230 / 256, 256, use_albumentations=True), 480, 640, 2.5),
        (ImageGeometry((256, 256), 0.95, 256, use_albumentations=True), 180, 240, 2.5),
        (ImageGeometry((64, 64), 0.9, 64, letter_box=True, use_albumentations=True), 90, 40, 2.0),
    ],
)
def test_patches_are_those_of_the_originals_up_to_their_rounding(geometry, height, width, levels):
    images = pictures(height, width)
    transform = ImageTransform(geometry, SETTINGS, height, width)
    patches = transform(images[None])[0]
    for image, ours in zip(images, patches, strict=True):
        theirs, grid = reference(geometry, image)
        assert grid == transform.grid and ours.shape == theirs.shape
        difference = (ours - theirs).abs() * PIXEL_STD * 255
        assert difference.max() <= levels
        assert difference.mean() <= 0.5  # rounding, not a shift


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 160)])
def test_an_image_of_the_right_size_is_not_resampled(height, width):
    geometry = ImageGeometry((height, width), 1.0, height)
    if height != width:  # bicubic geometry makes a square first; this one keeps the aspect
        geometry = ImageGeometry((height, width), 1.0, height, use_albumentations=True)
    transform = ImageTransform(geometry, SETTINGS, height, width)
    images = pictures(height, width)
    assert transform.num_steps == 0
    for image, ours in zip(images, transform(images[None])[0], strict=True):
        theirs, grid = reference(geometry, image)
        assert grid == transform.grid
        assert torch.allclose(ours, theirs, rtol=0.0, atol=1e-6)


def test_each_row_of_a_batch_is_computed_on_its_own():
    transform = ImageTransform(CROPPED, SETTINGS, 60, 80)
    images = pictures(60, 80).view(2, 2, 60, 80, 3)
    patches = transform(images)
    assert patches.shape == (2, 2, 16, SETTINGS.patch_values) and patches.dtype == torch.float32
    for row in range(2):
        for view in range(2):
            alone = transform(images[row : row + 1, view : view + 1])[0, 0]
            assert torch.allclose(patches[row, view], alone, rtol=0.0, atol=1e-5)


def test_the_exported_graph_gives_the_same_patches_for_any_batch():
    onnxruntime = pytest.importorskip("onnxruntime")
    transform = ImageTransform(CROPPED, SETTINGS, 60, 80)
    images = pictures(60, 80)[:, None]
    buffer = io.BytesIO()
    torch.onnx.export(
        transform,
        (images[:1],),
        buffer,
        input_names=["images"],
        output_names=["patches"],
        dynamic_axes={"images": {0: "N"}, "patches": {0: "N"}},
        opset_version=17,
        dynamo=False,
    )
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    (patches,) = session.run(None, {"images": images.numpy()})
    assert np.abs(patches - transform(images).numpy()).max() < 1e-4


def test_a_constant_image_stays_constant():
    images = torch.full((1, 1, 90, 70, 3), 200, dtype=torch.uint8)
    pixels = ImageTransform(REAL, SETTINGS, 90, 70).resize(images.permute(0, 1, 4, 2, 3).float())
    assert torch.allclose(pixels, torch.full_like(pixels, 200.0), atol=1e-3)


@pytest.mark.parametrize("matrix", [bicubic, area, area_enlarged])
@pytest.mark.parametrize(("length", "resized"), [(64, 64), (100, 33), (33, 100), (5, 1), (1, 5)])
def test_weights_of_each_output_pixel_sum_to_one(matrix, length, resized):
    weights = matrix(length, resized)
    assert weights.shape == (resized, length)
    assert torch.allclose(weights.sum(dim=1), torch.ones(resized, dtype=torch.float64))


def test_averaging_over_areas_counts_shares_of_pixels():
    weights = area(3, 2)  # output pixels cover [0, 1.5) and [1.5, 3)
    expected = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]], dtype=torch.float64) / 3.0
    assert torch.allclose(weights, expected)


@pytest.mark.parametrize(
    ("size", "resized"),
    [((90, 70), (45, 35)), ((90, 70), (41, 33)), ((45, 35), (90, 70)), ((45, 35), (64, 50))],
)
def test_matrices_resize_as_opencv_does(size, resized):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed: make gr00t")
    image = pictures(*size)[0]
    rows, columns = opencv_area(size, resized)
    ours = rows @ image[..., 0].double() @ columns.T
    theirs = cv2.resize(image.numpy(), resized[::-1], interpolation=cv2.INTER_AREA)[..., 0]
    assert np.abs(ours.numpy() - theirs).max() <= 1.0


def test_images_of_another_size_are_refused():
    with pytest.raises(ContractError, match=r"shape \(1, 1, 8, 9, 3\).*\(N, V, 8, 8, 3\)"):
        ImageTransform(CROPPED, SETTINGS, 8, 8)(torch.zeros(1, 1, 8, 9, 3, dtype=torch.uint8))


def test_a_sliver_of_an_image_is_refused():
    geometry = ImageGeometry((64, 64), 1.0, 64, use_albumentations=True)
    with pytest.raises(CheckpointError, match="aspect ratio up to 200"):
        ImageTransform(geometry, SETTINGS, 10, 5000)
