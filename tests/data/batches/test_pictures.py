"""Images and CT volumes as batches: the transform's own arrays, and patches that do not know of each other."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from src.config.transforms import CTTransformConfig, ImageTransformConfig
from src.data.batches.ct import CTBatch
from src.data.batches.image import ImageBatch
from src.transforms.ct import CTTransform
from src.transforms.image import ImageTransform
from tests.transforms.batches import streams_of
from tests.transforms.pictures import image_samples, volume_samples


def ct(**settings):
    turned = {"rotation": {"probability": 0.5}, "noise": {"probability": 1.0}}
    return CTTransformConfig.model_validate({"modality": "ct", "size": (4, 8, 8), **turned, **settings})


def test_images_are_those_of_the_transform():
    config = ImageTransformConfig.model_validate(
        {"modality": "image", "size": 16, "color_jitter": {"probability": 1.0}}
    )
    found = ImageBatch(config)(0, image_samples(3), streams_of(3))["image"]
    assert found.shape == (3, 3, 16, 16)
    assert np.array_equal(found, ImageTransform(config)(image_samples(3), streams_of(3).fork("transform")))


def test_volumes_are_those_of_the_transform():
    found = CTBatch(ct())(0, volume_samples(3), streams_of(3))["ct"]
    assert found.shape == (3, 2, 4, 8, 8)
    assert np.array_equal(found, CTTransform(ct())(volume_samples(3), streams_of(3).fork("transform")))


def test_patches_of_one_read_differ_and_do_not_depend_on_how_many_there_are():
    three, two = (CTBatch(ct(patches=count))(0, volume_samples(3), streams_of(3))["ct"] for count in (3, 2))
    assert three.shape == (3, 3, 2, 4, 8, 8) and torch.equal(three[:, :2], two)
    assert not any(torch.equal(three[:, 0], three[:, other]) for other in (1, 2))


def test_a_patch_does_not_depend_on_its_batch():
    batch, samples = CTBatch(ct(patches=2)), volume_samples(3)
    whole = batch(0, samples, streams_of(3))["ct"]
    assert torch.equal(batch(0, samples[1:], streams_of(2, 1))["ct"], whole[1:])


def test_a_volume_that_is_not_finite_is_found_before_the_batch():
    (_, sample) = volume_samples(2)
    sample["ct"][0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="sample c1: its ct holds NaN"):
        CTBatch(ct()).prepare(sample, streams_of(1))


def test_patches_of_the_middle_would_be_the_same():
    with pytest.raises(ValidationError, match="set patches to 1, or crop to random"):
        ct(patches=2, crop="center")
