"""Against published libraries, where they are installed: lightly's NT-Xent, open_clip's CLIP and SigLIP.

Their loss files are run by themselves: the packages around them import torchvision, of which no build for CPUs alone
installs beside torch, and none of which a loss needs.
"""

import importlib.util
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

from src.losses.contrastive.clip import clip
from src.losses.contrastive.ntxent import nt_xent
from src.losses.contrastive.siglip import siglip
from tests.losses.contrastive.reference import ROWS, pairs
from tools.benchmark_contrastive import open_clip_losses


def folder_of(package):
    found = importlib.util.find_spec(package)
    if found is None:
        pytest.skip(f"needs the files of {package}")
    return Path(found.submodule_search_locations[0])


@pytest.fixture(scope="module")
def open_clip():
    return open_clip_losses() or pytest.skip("needs the files of open_clip")


@pytest.fixture(scope="module")
def lightly():
    """Its packages without what their __init__ imports."""
    root, bare = folder_of("lightly"), {"torchvision": ModuleType("torchvision"), "timm": None}
    bare["torchvision.ops"] = ModuleType("torchvision.ops")
    bare["torchvision.ops"].StochasticDepth = torch.nn.Module
    for name in ("lightly", "lightly.loss", "lightly.models", "lightly.models.modules", "lightly.utils"):
        bare[name] = ModuleType(name)
        bare[name].__path__ = [str(root.joinpath(*name.split(".")[1:]))]
    with pytest.MonkeyPatch.context() as patch:
        for name, module in bare.items():
            patch.setitem(sys.modules, name, module)
        yield import_module("lightly.loss.ntx_ent_loss")
    for name in [name for name in sys.modules if name.startswith("lightly.")]:
        del sys.modules[name]


def slopes(loss, dtype=torch.float64):
    """A loss of two sides, and its gradients along them."""
    sides = [side.requires_grad_() for side in pairs(dtype)]
    found = loss(*sides)
    return [found.detach(), *torch.autograd.grad(found, sides)]


def assert_same(own, published):
    for mine, theirs in zip(slopes(own), slopes(published), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 0.5])
def test_ntxent_is_lightlys(lightly, temperature):
    assert_same(lambda x, y: nt_xent(x, y, temperature) / ROWS, lightly.NTXentLoss(temperature))


@pytest.mark.parametrize("scale", [1.0, 14.0, 100.0])
def test_clip_is_that_of_open_clip(open_clip, scale):
    scale, published = torch.tensor([scale], dtype=torch.float64), open_clip.ClipLoss()
    assert_same(
        lambda x, y: clip(x, y, scale) / ROWS,
        lambda x, y: published(F.normalize(x), F.normalize(y), scale),
    )


@pytest.mark.parametrize("bias", [-10.0, -2.0])
@pytest.mark.parametrize("block", [5, 1024])
def test_siglip_is_that_of_open_clip(open_clip, bias, block):
    scale, bias = (torch.tensor([number], dtype=torch.float64) for number in (10.0, bias))
    published = open_clip.SigLipLoss()
    assert_same(
        lambda x, y: siglip(x, y, scale, bias, block=block) / ROWS,
        lambda x, y: published(F.normalize(x), F.normalize(y), scale, bias),
    )
