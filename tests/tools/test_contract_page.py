"""The page of the contract: green and red cells, whatever goes wrong in one, and the picture of the moves."""

import json

from tools import contract
from tools.contract import Broken, Cell, page
from tools.contract_curves import Curve, draw_moves


def broken():
    raise Broken("differs by 3e-01")


def failing():
    raise OSError("no space | left\non the disk")


def moved_run(folder, start):
    (folder / "attempts").mkdir(parents=True)
    for number, step in enumerate((0, start)):
        (folder / "attempts" / f"{number}.json").write_text(json.dumps({"start": step}))
    lines = [json.dumps({"step": step, "loss": 1.0 / (step + 1)}) for step in range(10)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 10, "lo')


def test_red_cells_say_why_and_the_rest_is_told(tmp_path, monkeypatch):
    kept = [Cell("trains", "ddp", lambda: "2e-07"), Cell("trains", "fsdp", broken), Cell("goes on", "zero3", failing)]
    monkeypatch.setattr(contract, "cells", lambda config, folder: iter(kept))
    for name in ("plain-1", "fsdp-2-stopped-moved"):
        moved_run(tmp_path / "jepa-ecg" / name, 6)
    text, red = page(["jepa-ecg"], tmp_path, tmp_path)
    assert red == 2
    assert "| trains |  | 2e-07 | 🟥 differs by 3e-01 |  |  |  |  |" in text
    assert "| goes on |  |  |  |  |  |  | 🟥 no space / left on the disk |" in text
    assert "](moves_jepa-ecg.png)" in text and (tmp_path / "moves_jepa-ecg.png").stat().st_size > 10_000


def test_parts_of_a_page_that_are_not_made_anew_stay(tmp_path, monkeypatch):
    words = iter(["1e-07", "2e-07", "3e-07"])
    monkeypatch.setattr(contract, "cells", lambda config, folder: iter([Cell("trains", "ddp", lambda: next(words))]))
    both, _ = page(["jepa-ecg", "jepa-image"], tmp_path)
    again, _ = page(["jepa-image"], tmp_path, earlier=both)
    assert again == both.replace("2e-07", "3e-07") and "1e-07" in again


def test_curves_of_different_lengths_are_drawn_as_far_as_both_went(tmp_path):
    whole = {step: 1.0 / (step + 1) for step in range(20)}
    draw_moves(whole, {"a": Curve(5, {4: 0.3, 5: 0.2, 30: 0.1}), "b": Curve(8, {})}, tmp_path / "moves.png")
    assert (tmp_path / "moves.png").read_bytes().startswith(b"\x89PNG")
