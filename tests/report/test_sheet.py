"""The paper is true: 5 mm are 0.2 s and 0.5 mV, in the axes and in the pixels; the layout is a clinic's."""

import numpy as np
import pytest
from matplotlib.image import imread

from src.config.data import STANDARD_LEADS
from src.report.caption import MM_PER_INCH, PIXELS
from src.report.sheet import layout, save_sheet, sheet
from src.report.svg import drawing

TEN = np.random.default_rng(0).normal(0, 0.2, (12, 5000)).cumsum(1) / 20
ALL = np.ones(12, bool)


def test_five_millimetres_are_a_fifth_of_a_second_and_half_a_millivolt():
    with drawing():
        figure, axes = sheet(TEN, ALL, 500.0, STANDARD_LEADS, "title")
        figure.set_dpi(PIXELS * MM_PER_INCH)
        traces = [line for line in axes.lines if len(line.get_xdata()) == 1250]
        assert len(traces) == 12
        pixels = axes.transData.transform(traces[0].get_xydata())
    first_T = TEN[0, :1250]
    assert np.allclose(np.diff(pixels[:, 0]), 50 * (1 / 500) / 0.2)
    assert np.allclose(pixels[:, 1] - pixels[0, 1], 50 * (first_T - first_T[0]) / 0.5)
    assert figure.get_size_inches()[0] * MM_PER_INCH == pytest.approx(260)  # 10 s and the margin


def test_the_picture_has_a_line_every_fifty_pixels_and_a_step_where_it_was_put(tmp_path):
    step = np.zeros((1, 400))
    step[:, 200:] = 1.0  # 1 mV after 2 s
    save_sheet(tmp_path / "x.png", step, np.ones(1, bool), 100.0, ["II"], "title")
    picture = imread(tmp_path / "x.png")[:, :, :3]
    top = int(np.flatnonzero((picture[:, 5] < 0.999).any(1))[0])  # of the paper, in the margin
    paper = picture[top:]
    row = paper[25, :, 1]  # between two horizontal lines, above the trace
    dark = np.flatnonzero(row < np.median(row) - 0.2)
    lines = dark[np.diff(dark, prepend=-9) > 1]
    assert len(lines) >= 20 and set(np.diff(lines).tolist()) <= {49, 50, 51}
    assert lines[-1] - lines[0] == pytest.approx(50 * (len(lines) - 1), abs=1)
    black = (paper < 0.2).all(2)
    upright = np.flatnonzero(black[:, 200:].sum(0) > 80) + 200  # 1 mV is 100 pixels
    assert abs(upright.mean() - (100 + 2.0 * 250)) < 4  # 10 mm of margin, 25 mm a second, one sample's slope
    before, after = (np.flatnonzero(black[:, column]).mean() for column in (500, 700))
    assert before - after == pytest.approx(100, abs=1)


def test_twelve_leads_of_ten_seconds_stand_in_columns_in_any_order_of_the_data():
    order = np.random.default_rng(1).permutation(12)
    leads = [STANDARD_LEADS[lead] for lead in order]
    rows = layout(TEN[order], ALL, 500.0, leads)
    assert [[piece.lead for piece in row] for row in rows] == [
        ["I", "aVR", "V1", "V4"],
        ["II", "aVL", "V2", "V5"],
        ["III", "aVF", "V3", "V6"],
        ["II"],
    ]
    for row in rows:
        for piece in row:
            first = round(piece.start * 500)
            own = TEN[STANDARD_LEADS.index(piece.lead)]
            assert np.array_equal(piece.signal_T, own[first : first + len(piece.signal_T)])
    assert [piece.start for piece in rows[0]] == [0, 2.5, 5, 7.5]
    assert len(rows[3][0].signal_T) == 5000


@pytest.mark.parametrize(("leads", "samples"), [(12, 4000), (12, 6250), (3, 5000), (1, 360)])
def test_everything_else_is_stacked(leads, samples):
    rows = layout(np.zeros((leads, samples)), np.ones(leads, bool), 500.0, STANDARD_LEADS[:leads])
    assert [[piece.lead for piece in row] for row in rows] == [[lead] for lead in STANDARD_LEADS[:leads]]
    assert all(len(row[0].signal_T) == samples for row in rows)


def words(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_what_is_not_shown_is_told():
    keep = np.array([True, False, True])
    ecg = np.zeros((3, 100 * 100))
    ecg[2, 50] = 9.0
    with drawing():
        figure, _ = sheet(ecg, keep, 100.0, ["I", "II", "V1"], "title", ["labels: $a_b$"], "word " * 999)
    found = words(figure)
    assert "II (no signal)" in found and "labels: $a_b$" in found
    assert "drawn: the first 30 of 100 s" in found
    assert "cut off at the edge of its row: V1" in found
    assert sum(line.startswith("word") for line in found) == 5 and any(line.endswith(" ...") for line in found)


@pytest.mark.parametrize("samples", [100, 1000])
def test_no_word_leaves_the_sheet(samples):
    with drawing():
        figure, axes = sheet(
            np.zeros((12, samples)),
            ALL,
            100.0,
            STANDARD_LEADS,
            "folder/OF-A-LONG-KEY_" * 9,
            ["labels: " + ", ".join(["ANTEROSEPTAL"] * 40)],
            "ABNORMAL ECG WITH MARKED SINUS BRADYCARDIA " * 30,
        )
        inside = figure.bbox
        boxes = [text.get_window_extent() for text in axes.texts]
    assert all(box.x0 >= 0 and box.x1 <= inside.x1 and box.y0 >= 0 and box.y1 <= inside.y1 for box in boxes)


def test_the_picture_is_the_same_every_time(tmp_path):
    for name in ("a", "b"):
        save_sheet(tmp_path / f"{name}.png", TEN, ALL, 500.0, STANDARD_LEADS, "title", ["labels"], "report")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
