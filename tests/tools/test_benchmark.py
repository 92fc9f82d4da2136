"""The benchmark runs and says what it measured; how fast is for the reader of the table."""

import json
import re

import pytest

from src.transforms import show_ct, show_image, show_video
from src.transforms.show_ecg import AUGMENTATIONS
from tools.benchmark import main, rates


def test_masks_prints_the_machine_and_a_row_for_each_style_and_grid(capsys):
    assert main(["masks", "--seconds", "0.01", "--batch", "4"]) == 0
    machine, _, table = capsys.readouterr().out.partition("\n")
    assert re.fullmatch(r".+, \d+ cores; Python \S+; numpy \S+; commit \S+", machine)
    rows = re.findall(r"^\| ([\w, ]+) \| ([\d x]+) \| ([\d,]+) \| ([\d,]+) to ([\d,]+) \|$", table, re.MULTILINE)
    assert len({row[:2] for row in rows}) == len(rows) == 19
    for row in rows:
        median, low, high = (int(number.replace(",", "")) for number in row[2:])
        assert 0 < low <= median <= high


def test_augmentations_prints_a_row_for_each_and_for_none_the_pair_and_all(capsys):
    assert main(["augmentations", "--seconds", "0.01", "--batch", "2"]) == 0
    rows = re.findall(r"^\| ([\w ]+) \| ([\d,]+) \| [\d,]+ to [\d,]+ \|$", capsys.readouterr().out, re.MULTILINE)
    assert [name for name, _ in rows] == ["none", "resized_crop and time_out", "all", *AUGMENTATIONS]


@pytest.mark.parametrize(
    ("modality", "unit", "names", "files"),
    [
        ("image", "images", show_image.AUGMENTATIONS, ["image_ijepa.yaml", "image_simclr.yaml"]),
        ("video", "clips", show_video.AUGMENTATIONS, ["video_randaugment.yaml"]),
        ("ct", "volumes", show_ct.AUGMENTATIONS, ["ct_chest.yaml"]),
    ],
)
def test_augmentations_of_other_modalities_have_their_rows_and_the_shipped_files(capsys, modality, unit, names, files):
    assert main(["augmentations", "--modality", modality, "--seconds", "0.001", "--batch", "1", "--size", "16"]) == 0
    out = capsys.readouterr().out
    rows = re.findall(r"^\| ([\w .]+) \| ([\d,.]+) \| ([\d,.]+) to ([\d,.]+) \|$", out, re.MULTILINE)
    assert [name for name, *_ in rows] == ["none", "all", *names, *files] and f"| {unit}/s " in out
    assert all(0 < float(low.replace(",", "")) <= float(high.replace(",", "")) for *_, low, high in rows)


def test_intervals_prints_times_and_the_coverage_at_each_size(capsys):
    arguments = ["--records", "200", "--labels", "2", "--draws", "50", "--datasets", "4", "--patients", "30", "60"]
    assert main(["intervals", *arguments]) == 0
    out = capsys.readouterr().out
    assert re.match(r".+, \d+ cores; Python \S+; numpy \S+; commit \S+\n", out)
    times = re.findall(r"^\| (.+) \| ([\d.]+) \| ([\d.]+) to ([\d.]+) \|$", out, re.MULTILINE)
    assert len(times) == 4 and all(float(low) <= float(middle) <= float(high) for _, middle, low, high in times)
    shares = re.findall(r"^\| (\d+) \| (.+) \| ([\d.]+) \+- ([\d.]+) % / 4 \| (yes|no) \|$", out, re.MULTILINE)
    assert [size for size, *_ in shares] == ["30"] * 9 + ["60"] * 9 and len({row[:2] for row in shares}) == 18
    for _, _, share, _, inside in shares:
        assert (inside == "yes") == (93 <= float(share) <= 97)


def test_health_is_measured_against_the_training_of_the_same_run(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("data: {batch_size: 10}\n")
    metrics = [{"step": 49, "samples_per_second": 100.0}, {"step": 99, "samples_per_second": 50.0}]  # 5 s and 10 s
    health = [{"step": 49, "records": 7, "seconds": 0.2}, {"step": 99, "records": 7, "seconds": 0.4}]
    for name, records in (("metrics", metrics), ("health", health)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert main(["health", "--run", str(tmp_path)]) == 0
    assert "| 2 + 1 | 7 | 0.30 | 6.0% of 15 s | 0.4% |" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["none", "probe", "unseen"])
def test_a_folder_without_health_is_one_sentence(tmp_path, capsys, name):
    logs = {"probe": ('{"step": 0}\n', ""), "unseen": ('{"step": 9, "samples_per_second": 1.0}\n', "")}
    for file, text in zip(("metrics", "health"), logs.get(name, ()), strict=False):
        (tmp_path / f"{file}.jsonl").write_text(text)
    assert main(["health", "--run", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ") and str(tmp_path) in told and told.count("\n") == 1


def test_rates_are_ascending_and_of_every_repeat():
    calls = []
    found = rates(lambda: calls.append(sum(range(1000))), 0.02)
    assert found == sorted(found) and len(found) == 7 and len(calls) > 7


@pytest.mark.parametrize(
    "arguments", [[], ["masks", "--seconds", "0"], ["masks", "--batch", "0"], ["intervals", "--draws", "0"], ["speed"]]
)
def test_a_wrong_command_line_is_refused(arguments):
    with pytest.raises(SystemExit):
        main(arguments)


@pytest.mark.data
@pytest.mark.parametrize(
    ("modality", "builds"),
    [
        ("video", ["h264", "mjpeg"]),
        ("ecg", ["at 100 Hz"]),
        ("image", ["stripped", "224 x 224"]),
        ("ct", ["as it is", "deflated"]),
    ],
)
def test_build_prints_a_row_for_each_way_beside_decoding_alone(medssl_data, tmp_path, capsys, modality, builds):
    folder = medssl_data / modality.replace("image", "video")  # whose first frames are the images
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    command = ["build", "--modality", modality, "--records", "2", "--output", str(tmp_path), "--builds", *builds]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert float(re.search(r"takes ([\d.]+) ms", out)[1]) > 0
    rows = re.findall(
        r"^\| ([-\w ]+) \| ([\d,.]+) \| ([\d,.]+) \| ([\d.]+) \| [\d.]+ \| ([\d,.]+) \|$", out, re.MULTILINE
    )
    assert [row[0] for row in rows] == builds
    for _, rate, each, times, size in rows:
        assert float(rate) * float(each.replace(",", "")) == pytest.approx(1000, rel=0.2)
        assert float(times) > 1 and float(size) > 0
    assert not list(tmp_path.iterdir())


def test_build_without_the_public_records_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MEDSSL_DATA", str(tmp_path))
    assert main(["build", "--modality", "video"]) == 1
    assert "holds no public records of video" in capsys.readouterr().err
