"""The masks on the page of a run on images, videos or CT volumes: those of training, over what the encoder sees."""

import base64
import io
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from src.config import load_config
from src.data.inputs import open_shards, preprocessing_of, sources_of
from src.data.loader import Loader
from src.distributed.ranks import Ranks
from src.report.masked import BLOCKS, GREYED, HIDDEN, TINT, MaskedPlane, masked_planes
from src.report.masks import mask_pictures
from src.report.page import write_page
from src.report.read import read_run
from ssls.jepa.config import Config
from ssls.jepa.train import Collate
from tests.commands import succeed
from tests.report.html_page import Page

PLANES = {"image": [0], "video": [0, 2, 3], "ct": [0, 2, 3]}
"""Of 1, 4 and 4 along the first axis of the grid."""
LUNG, SOFT = "{center: -600.0, width: 1500.0, mean: 0.4, std: 0.3}", "{center: 40.0, width: 400.0}"
STANDARDIZED = [f"data.transform.windows=[{LUNG}, {SOFT}]"]
EVERYWHERE = np.ones((2, 2), np.bool_)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run of each modality."""
    place = tmp_path_factory.mktemp("pictures")
    for modality in PLANES:
        own = [f"data.root={place / 'shards' / modality}", f"logging.folder={place / modality}"]
        steps = ["optimization.epochs=null", "optimization.warmup_epochs=null", "optimization.steps=4"]
        words = [*own, *steps, "evaluation.every=4", *(STANDARDIZED if modality == "ct" else [])]
        succeed("--fname", f"configs/jepa/{modality}_debug.yaml", "--devices", "cpu", "--set", *words)
    return place


@pytest.fixture(scope="module")
def pages(runs):
    """Of each modality."""
    return {modality: write_page([runs / modality]) for modality in PLANES}


def shaded(figure, colour, opacity):
    """Tokens under a colour."""
    paths = re.findall(rf'<path d="([^"]*)"[^>]*style="fill: {colour}; opacity: {opacity:g}"', figure)
    return sum(path.count("M") for path in paths)


def trained_masks(folder):
    """Context and targets of each kind, [3, X, *grid] bool, as the loader gives them to the first step."""
    config = load_config(folder / "config.yaml", [], lambda objective: Config)
    shards = open_shards(config.data, "train")
    collate = Collate(config, preprocessing_of(config.data, shards, config.model.encoder))
    ranks = Ranks(0, 1, torch.device("cpu"))
    loader = Loader(config.data, sources_of(config.data, shards), collate, ranks, config.seed)
    (batch,) = next(iter(loader.steps(0, 1)))
    grid = config.model.encoder.grid
    grid = grid if len(grid) == 3 else (1, *grid)
    for name in collate.names:
        yield tuple(chosen(batch[key][:3], grid) for key in (name.context, name.targets))


def chosen(tokens, grid):
    lists = tokens.reshape(len(tokens), -1, tokens.shape[-1]).long()
    found = torch.zeros(*lists.shape[:2], int(np.prod(grid)), dtype=torch.bool).scatter(2, lists, True)
    return found.reshape(*found.shape[:2], *grid).numpy()


@pytest.mark.parametrize("modality", PLANES)
def test_as_many_tokens_are_shaded_as_training_hid(runs, modality):
    found = mask_pictures(read_run(runs / modality))
    kinds = list(trained_masks(runs / modality))
    assert len(found.kinds) == len(kinds) == (2 if modality == "video" else 1)
    for kind, (context, targets) in zip(found.kinds, kinds, strict=True):
        assert len(kind.figures) == 3
        for (figure, caption), context_RQ, targets_MRQ in zip(kind.figures, context[:, 0], targets, strict=True):
            hidden = targets_MRQ.any(0)
            neither = ~(context_RQ | hidden)
            assert caption == f"{context_RQ.sum()} context, {hidden.sum()} target, {neither.sum()} neither"
            planes = PLANES[modality]
            assert shaded(figure, HIDDEN, GREYED) == neither[planes].sum()
            assert [shaded(figure, colour, TINT) for colour in BLOCKS[: len(targets_MRQ)]] == [
                target[planes].sum() for target in targets_MRQ
            ]
            assert figure.count("<image") == len(planes)


@pytest.mark.parametrize("modality", PLANES)
def test_picture_is_what_the_encoder_sees(runs, modality):
    figure = mask_pictures(read_run(runs / modality)).kinds[0].figures[0][0]
    drawn = [np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))) for png in pictures_of(figure)]
    config = load_config(runs / modality / "config.yaml", [], lambda objective: Config)
    with open_shards(config.data, "train") as shards:
        preprocessing = preprocessing_of(config.data, shards, config.model.encoder)
        windows = [preprocessing.windows_of(sample, 1)[0, 0] for sample in shards.read(np.arange(len(shards)))]
    std, mean = (0.3, 0.4) if modality == "ct" else (0.226, 0.449)
    seen = np.stack(windows) * std + mean
    step = {"image": 1, "video": 2, "ct": 4}[modality]
    middles = [place * step + (step - 1) // 2 for place in PLANES[modality]]
    planes = seen[:, None] if modality == "image" else seen[:, middles]
    times = len(drawn[0]) // planes.shape[-1]
    shown = np.stack([picture[::times, ::times, 0] for picture in drawn])
    assert np.abs(planes * 255 - shown).max((1, 2, 3)).min() <= 2.0, "one of the split's, in 256 shades"


def pictures_of(text):
    return re.findall(r'href="data:image/png;base64,\s*([^"]*)"', text)


@pytest.mark.parametrize("modality", PLANES)
def test_page_speaks_of_its_own_modality(pages, modality):
    page = Page(pages[modality])
    words = page.text
    told = Page(re.sub(r"<pre>.*?</pre>", "", pages[modality], flags=re.DOTALL)).text  # the config has every key
    assert not re.search(r"\bECG|\bleads?\b|\bmV\b|mm/s", told)
    tokens = {
        "image": "8 x 8 tokens of 4 x 4 pixels",
        "video": "4 x 4 x 4 tokens of 2 x 8 x 8 pixels",
        "ct": "4 x 4 x 4 tokens of 4 x 8 x 8 voxels",
    }
    assert words.count(tokens[modality]) == 2, "of the encoder, and of the masks"
    assert {"image": "images", "video": "videos", "ct": "CT volumes"}[modality] in words
    assert "Sample 3:" in words and "can't be drawn" not in words
    assert ("Kind 2: complement, 2 blocks of 50 %" in words) == (modality == "video")
    assert all(
        tag == "image" or target[0] == "#" or "://doi" in target or target == "data:,"
        for tag, target in page.references
    )


@pytest.mark.parametrize("modality", PLANES)
def test_page_without_records_holds_no_picture(runs, pages, modality):
    text = write_page([runs / modality], show_ecg=False)
    assert not pictures_of(text) and pictures_of(pages[modality])
    name = {"image": "image", "video": "video", "ct": "CT volume"}[modality]
    assert f"this page was made to hold no {name}" in Page(text).text
    assert shaded(text, BLOCKS[0], TINT) == shaded(pages[modality], BLOCKS[0], TINT) > 0


def test_shards_that_are_elsewhere_are_told_of(runs, tmp_path):
    folder = shutil.copytree(runs / "image", tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(re.sub("root: .*", "root: /nowhere/ours", config))
    assert "The shards ours can't be read from here, so the masks can't be drawn." in Page(write_page([folder])).text


@pytest.mark.parametrize("shape", [(30, 20), (1001, 640), (64, 64, 3)])
def test_picture_is_neither_coarse_nor_large_on_the_page(shape):
    picture = np.linspace(0.0, 1.0, int(np.prod(shape))).reshape(shape)
    figure = masked_planes([MaskedPlane("", shape[:2], picture, EVERYWHERE, EVERYWHERE[None] & False)], "x")
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures_of(figure)[0]))))
    assert 200 <= max(drawn.shape[:2]) <= 320
    assert drawn.shape[0] / drawn.shape[1] == pytest.approx(shape[0] / shape[1], rel=0.01)
    assert drawn[..., 0].mean() / 255 == pytest.approx(0.5, abs=0.01)
    assert shaded(figure, HIDDEN, GREYED) == 0
