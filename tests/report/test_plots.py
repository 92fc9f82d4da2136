"""What is drawn is what was measured."""

import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from src.data.ecg_shards import ECGShards
from src.data.order import Order
from src.masks.config import MaskConfig
from src.masks.sampler import MaskSampler
from src.randomness import Streams
from src.report.masks import mask_pictures
from src.report.paper import draw_ecg, ecg_on_paper, masked_ecg
from src.report.plots import Interval, Line, Series, curves, envelope, forest, principal_plane
from src.report.read import read_run
from tests.report.html_page import Page


def series(values):
    return Series(np.arange(len(values), dtype=float), np.asarray(values, float))


def test_short_lines_are_drawn_as_they_are():
    values = np.random.default_rng(0).random(300)
    assert np.array_equal(envelope(series(values)).mean, values)


def test_a_million_lines_keep_their_mean_and_every_spike():
    values = np.random.default_rng(0).random(1_000_003)
    values[777_777], values[12] = 50.0, np.nan
    found = envelope(series(values))
    assert len(found.steps) == 240 and found.high.max() == 50.0 and found.low.min() == np.nanmin(values)
    assert found.mean[0] == pytest.approx(np.nanmean(values[: 1_000_003 // 240]), abs=1e-12)
    assert np.all(np.diff(found.steps) > 0)


def test_stretches_without_a_number_stay_empty():
    values = np.full(10_000, np.nan)
    values[:100] = 1.0
    found = envelope(series(values))
    assert found.mean[0] == 1.0 and np.isnan(found.mean[-1]) and np.isnan(found.high[-1])


@pytest.mark.parametrize("values", [[], [1.0], [np.nan, np.nan], [0.0, 0.0], [1e-300, 1e300]])
def test_any_line_can_be_drawn(values):
    Page(curves("<title> & $x_1$", [Line(series(values), "#0072b2", label="a & b")], low=0.0))


def test_figures_hold_no_names_that_another_figure_has():
    figures = [curves(title, [Line(series([1.0, 2.0]), "#0072b2")]) for title in ("one", "two")]
    ids = [re.findall(r' id="([^"]*)"', figure) for figure in figures]
    assert all(ids) and not set(ids[0]) & set(ids[1])
    for figure, own in zip(figures, ids, strict=True):
        assert set(re.findall(r'(?:url\(|href=")#([\w-]+)', figure)) == set(own), "each is used, and no other"


def test_forest_draws_every_interval():
    rows = {
        "pretrained": [Interval(0.8, 0.7, 0.9), Interval(np.nan, np.nan, np.nan)],
        "raw": [Interval(0.6, 0.5, 0.7)] * 2,
    }
    text = Page(forest("auroc", ["A & B", "x" * 90], rows)).text
    assert "A & B" in text and "pretrained" in text and "x" * 28 not in text


def test_principal_plane_is_that_of_scikit_learn():
    decomposition = pytest.importorskip("sklearn.decomposition")
    features = np.random.default_rng(0).normal(size=(60, 12)).astype(np.float32) @ np.diag(np.arange(1, 13)).astype(
        np.float32
    )
    features[:, 3] += features[:, 5]
    plane = principal_plane(features)
    features = features.astype(np.float64)
    standard = (features - features.mean(0)) / features.std(0)
    reference = decomposition.PCA(2).fit(standard)
    assert np.allclose(plane.shares, reference.explained_variance_ratio_, atol=1e-9)
    assert np.allclose(np.abs(plane.points_N2), np.abs(reference.transform(standard)), atol=1e-6)


def test_principal_plane_does_not_depend_on_the_order_of_records():
    features = np.random.default_rng(0).normal(size=(60, 12)).astype(np.float32)
    order = np.random.default_rng(1).permutation(60)
    assert np.allclose(
        principal_plane(features).points_N2[order], principal_plane(features[order]).points_N2, atol=1e-9
    )


@pytest.mark.parametrize("features", [np.ones((50, 8)), np.ones((2, 8)), np.full((50, 8), np.nan), np.empty((0, 8))])
def test_features_without_spread_have_no_plane(features):
    assert principal_plane(features.astype(np.float32)) is None


def test_paper_is_25_mm_a_second_and_10_mm_a_millivolt():
    figure = Figure()
    axes = figure.add_subplot()
    ecg_CT = np.zeros((1, 500))
    ecg_CT[0, 250] = 1.0
    draw_ecg(axes, ecg_CT, 250.0, ["II"])
    trace = next(line for line in axes.lines if len(line.get_xdata()) == 500)
    x, y = np.asarray(trace.get_xdata()), np.asarray(trace.get_ydata())
    assert x[250] == pytest.approx(25.0) and y[0] - y.min() == pytest.approx(10.0), "y grows downwards"
    assert y.argmin() == 250


def test_paper_is_printed_in_its_size():
    width, height = re.search(
        r'width="([\d.]+)mm" height="([\d.]+)mm"', ecg_on_paper(np.zeros((2, 1000)), 100.0, ["I", "II"])
    ).groups()
    assert float(width) == pytest.approx(250.0 + 10.0, abs=0.1) and float(height) % 5.0 == pytest.approx(0.0, abs=0.11)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6, -40.0])
def test_paper_takes_what_is_no_ecg(value):
    ecg_CT = np.zeros((3, 100))
    ecg_CT[1] = value
    Page(ecg_on_paper(ecg_CT, 100.0, ["<b>", "$", ""]))


def test_mask_rectangles_lie_where_the_tokens_are():
    context, targets = np.array([0, 1, 5]), np.array([[2, 3], [3, 4]])
    figure = masked_ecg(np.zeros((1, 100)), 100.0, ["II"], 10, context, targets, "masks")
    for colour, stretches in (("#0072b2", [(0, 2), (5, 1)]), ("#e69f00", [(2, 2), (3, 2)])):
        solid = re.findall(rf'<path d="M ?([\d.]+) [\d.]+\s*L([\d.]+)[^"]*"[^>]*style="fill: {colour}"', figure)
        millimetre = 72 / 25.4
        found = {
            (round((float(a) / millimetre - 10) / 2.5), round((float(b) - float(a)) / millimetre / 2.5))
            for a, b in solid
        }
        assert set(stretches) <= found, (colour, found)


def test_masks_are_those_of_training(trained):
    config = read_run(trained).config
    with ECGShards(config["data"]["root"], "train", config["data"]["leads"]) as shards:
        epochs, samples = Order(0, shards.sizes).order(np.arange(16))
    streams = Streams.of_samples(0, epochs, samples).fork("mask")
    masks = MaskSampler(MaskConfig(), (40,), 0)(0, streams)
    pictures = mask_pictures(read_run(trained))
    (kind,) = pictures.kinds
    assert len(kind.figures) == 3 and pictures.tokens == "40 tokens along 4 s"
    for (_, caption), context_K, targets_MT in zip(
        kind.figures, masks.context_BK[:3], masks.targets_BMT[:3], strict=True
    ):
        assert caption.startswith(f"{len(context_K)} context, {len(np.unique(targets_MT))} target")


def test_masks_over_time_stand_for_all_leads_and_each_kind_has_a_row(trained):
    run = read_run(trained)
    encoder = run.config["model"]["encoder"] | {"name": "ecg_lead_tiny"}
    own = {"model": {"encoder": encoder}, "more_masks": [{"style": "complement", "targets": 2, "min_context": 5}]}
    found = mask_pictures(replace(run, config=run.config | own))
    plain = mask_pictures(run)
    leads = len(run.config["data"]["leads"])
    assert found.tokens == f"{leads} x 40 tokens along 4 s" and "the same on all leads" in found.shown
    assert [kind.words for kind in found.kinds] == [
        "multiblock, 4 blocks of 15 to 20 %",
        "complement, 2 blocks of 15 to 20 %",
    ]
    first, second = ([caption for _, caption in kind.figures] for kind in found.kinds)
    assert first == [f"{caption} of the 40 tokens of each lead" for _, caption in plain.kinds[0].figures]
    assert all(", 0 neither" in caption for caption in second) and plain.shown == ""


def test_an_architecture_that_only_the_hub_knows_is_not_asked_for(trained):
    run = read_run(trained)
    model = {"encoder": {"name": "transformers", "folder": "nobody/nothing"}}
    with pytest.raises(ValueError, match="is not one that this version can read"):
        mask_pictures(replace(run, config=run.config | {"model": model}))
