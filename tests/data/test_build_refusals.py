"""What is wrong with an archive is said in one sentence, or stands in rejected.csv; the rest is built."""

import numpy as np
import pytest

from src.config.data import STANDARD_LEADS
from src.data.ecg_shards import ECGShards
from tests.data.archive import LEADS, build, rejected, signal, write_arrays, write_csv, write_wfdb


def refuse(capsys, tmp_path, *words):
    """The sentence of a build that must fail and leave nothing behind."""
    code, _, err = build(capsys, "ecg", "--output", tmp_path / "out", *words)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 1 and len(errors) == 1, err
    assert not (tmp_path / "out").exists()
    return errors[0]


def keep_two(capsys, tmp_path, archive, *words):
    """The reasons of a build in which the two good records must come through."""
    code, _, err = build(capsys, "ecg", "--input", archive, "--patient-folders", "--output", tmp_path / "out", *words)
    assert code == 0, err
    with ECGShards(tmp_path / "out", "train", STANDARD_LEADS) as shards:
        assert len(shards) == 2
    assert "rejected.csv tells which and why" in err
    return rejected(tmp_path / "out")


def test_a_missing_input_is_named(tmp_path, capsys):
    assert "nowhere is not there" in refuse(capsys, tmp_path, "--input", tmp_path / "nowhere")


def test_a_missing_file_rejects_its_record(archive, tmp_path, capsys):
    (write_wfdb(archive / "carl", "three").with_suffix(".dat")).unlink()
    assert keep_two(capsys, tmp_path, archive) == {"carl/three": "there is no three.dat"}


def test_a_row_whose_record_is_missing_is_rejected(archive, tmp_path, capsys):
    rows = [{"path": path, "who": path[:4]} for path in ("anna/one", "bert/two.dat", "carl/three.hea")]
    table = write_csv(tmp_path / "list.csv", rows)
    code, _, err = build(
        capsys, "ecg", "--input", archive, "--table", table, "--patient-column", "who", "--output", tmp_path / "out"
    )
    assert code == 0, err
    assert rejected(tmp_path / "out") == {"carl/three": "there is no three.hea"}


def test_an_empty_folder_is_told(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "holds no WFDB record" in refuse(capsys, tmp_path, "--input", tmp_path / "empty", "--no-patients")


def test_an_unreadable_record_is_rejected(archive, tmp_path, capsys):
    (archive / "carl").mkdir()
    (archive / "carl" / "three.hea").write_bytes(b"\x00\xff rubbish\n\xfe")
    reasons = keep_two(capsys, tmp_path, archive)
    assert list(reasons) == ["carl/three"] and "can't be read as WFDB" in reasons["carl/three"]


def test_a_damaged_record_is_rejected(archive, tmp_path, capsys):
    data = write_wfdb(archive / "carl", "three").with_suffix(".dat")
    data.write_bytes(data.read_bytes()[:4000] + b"\x7f" + data.read_bytes()[4001:])
    assert "its checksum is not the header's" in keep_two(capsys, tmp_path, archive)["carl/three"]


def test_a_wrong_lead_count_is_rejected(tmp_path, capsys):
    words = write_arrays(tmp_path / "a", records=4)
    np.save(tmp_path / "a" / "ecgs.npy", np.zeros((4, 11, 200), np.int16))
    assert "its array is [11, 200], with 12 leads" in refuse(capsys, tmp_path, *words[1:])


def test_too_few_leads_are_rejected(archive, tmp_path, capsys):
    write_wfdb(archive / "carl", "three", signal(3, leads=3), leads=["I", "II", "V1"])
    reasons = keep_two(capsys, tmp_path, archive, "--fewest-leads", "12")
    assert reasons == {"carl/three": "3 of its leads carry a signal, fewer than the 12 asked for"}


def test_unknown_lead_names_are_rejected(archive, tmp_path, capsys):
    write_wfdb(archive / "carl", "three", leads=[f"channel {number}" for number in range(12)])
    reasons = keep_two(capsys, tmp_path, archive)
    assert "none of its channels (channel 0, " in reasons["carl/three"] and "--rename" in reasons["carl/three"]


def test_a_record_of_nan_is_rejected(archive, tmp_path, capsys):
    write_wfdb(archive / "carl", "three", np.full((400, 12), np.nan))
    reasons = keep_two(capsys, tmp_path, archive)
    assert reasons == {"carl/three": "no lead carries a signal: each is missing, NaN or flat"}


def test_a_wrong_sampling_rate_is_rejected(archive, tmp_path, capsys):
    write_wfdb(archive / "carl", "three", rate=250)
    reasons = keep_two(capsys, tmp_path, archive)
    assert "it has 250 Hz and the folder 100 Hz" in reasons["carl/three"]
    assert "--sampling-rate" in reasons["carl/three"]


@pytest.mark.parametrize("rate", ["0", "-5", "fast", "inf"])
def test_a_rate_that_can_not_be_is_refused(archive, tmp_path, capsys, rate):
    assert "--sampling-rate" in refuse(capsys, tmp_path, "--input", archive, "--sampling-rate", rate)


def test_a_key_that_two_records_would_have_is_refused(tmp_path, capsys):
    write_wfdb(tmp_path / "ecgs" / "a", "b-c")
    write_wfdb(tmp_path / "ecgs" / "a-b", "c")
    sentence = refuse(capsys, tmp_path, "--input", tmp_path / "ecgs", "--patient-folders", "--keep-ids")
    assert "would both have the key a-b-c" in sentence and "a/b-c" in sentence and "a-b/c" in sentence


def test_a_record_listed_twice_is_refused(archive, tmp_path, capsys):
    table = write_csv(tmp_path / "list.csv", [{"path": path, "who": "x"} for path in ("anna/one", "anna/one.hea")])
    sentence = refuse(capsys, tmp_path, "--input", archive, "--table", table, "--patient-column", "who")
    assert "rows 1 and 2 are both of the record anna/one" in sentence


def test_without_any_patient_nothing_is_built(archive, tmp_path, capsys):
    sentence = refuse(capsys, tmp_path, "--input", archive)
    assert "has a patient" in sentence and "--patient-folders" in sentence and "--no-patients" in sentence


def test_a_record_without_patient_is_rejected_unless_asked_for(archive, tmp_path, capsys):
    write_wfdb(archive, "three", signal(3))
    assert keep_two(capsys, tmp_path, archive) == {"three": "it has no patient"}
    words = ("ecg", "--input", archive, "--patient-folders", "--no-patients", "--output", tmp_path / "all")
    assert build(capsys, *words)[0] == 0
    with ECGShards(tmp_path / "all", "train", STANDARD_LEADS) as shards:
        assert len(shards) == 3


def test_a_patient_in_two_splits_is_refused_and_not_named(archive, tmp_path, capsys):
    rows = [
        {"path": "anna/one", "who": "Secret", "split": "train"},
        {"path": "bert/two", "who": "Secret", "split": "test"},
    ]
    table = write_csv(tmp_path / "list.csv", rows)
    words = ("--patient-column", "who", "--split-column", "split")
    sentence = refuse(capsys, tmp_path, "--input", archive, "--table", table, *words)
    assert "anna/one in train and bert/two in test are of one patient" in sentence and "Secret" not in sentence


def test_a_flag_that_does_nothing_here_is_refused(archive, tmp_path, capsys):
    sentence = refuse(capsys, tmp_path, "--input", archive, "--patient-folders", "--label-columns", "AF")
    assert "--label-columns does nothing for a folder of WFDB records" in sentence


def test_an_archive_of_which_nothing_can_be_used_says_why(tmp_path, capsys):
    write_wfdb(tmp_path / "ecgs" / "x", "one", leads=["a"] * 1, values=signal(leads=1))
    sentence = refuse(capsys, tmp_path, "--input", tmp_path / "ecgs", "--patient-folders")
    assert "none of 1 records can be used; the first: x/one: none of its channels (a)" in sentence


def test_lead_names_of_a_header_are_taken_in_any_case(archive, tmp_path, capsys):
    write_wfdb(archive / "carl", "three", signal(3), leads=[lead.lower() for lead in LEADS])
    code, _, err = build(capsys, "ecg", "--input", archive, "--patient-folders", "--output", tmp_path / "out")
    assert code == 0 and "left out" not in err


def test_a_missing_lead_is_told_and_counts_in_no_statistic(archive, tmp_path, capsys):
    write_wfdb(archive / "carl", "three", signal(3, leads=11), leads=LEADS[:5] + LEADS[6:])
    output = tmp_path / "out"
    code, out, _ = build(capsys, "ecg", "--input", archive, "--patient-folders", "--keep-ids", "--output", output)
    assert code == 0 and "leads that are missing or flat: aVF in 1 samples" in out
    with ECGShards(output, "train", STANDARD_LEADS) as shards:
        samples = {sample["key"]: sample for sample in shards.read(np.arange(3))}
        statistics = shards.index.statistics
    assert samples["carl-three"]["lead_keep"].tolist() == [lead != "aVF" for lead in STANDARD_LEADS]
    assert not samples["carl-three"]["ecg"][5].any() and samples["anna-one"]["lead_keep"].all()
    assert np.array_equal(samples["carl-three"]["ecg"][6:], (signal(3, leads=11)[:, 5:].T / 1000).astype(np.float32))
    assert statistics.count == tuple(800 if lead == "aVF" else 1200 for lead in STANDARD_LEADS)
    two = np.concatenate([samples["anna-one"]["ecg"][5], samples["bert-two"]["ecg"][5]]).astype(np.float64)
    assert statistics.mean[5] == pytest.approx(two.mean(), rel=1e-9)
    assert statistics.std[5] == pytest.approx(two.std(), rel=1e-9)


def test_the_header_of_several_segments_is_rejected_and_its_segments_are_records(archive, tmp_path, capsys):
    (archive / "carl").mkdir()
    (archive / "carl" / "all.hea").write_text("all/2 12 100 800\nanna/one 400\nbert/two 400\n")
    reasons = keep_two(capsys, tmp_path, archive)
    assert reasons == {"carl/all": "it is the header of several segments, which are records of their own here"}


@pytest.mark.parametrize(
    "words",
    [("--leads", "I", "ii", "II"), ("--rename", "A=I", "A=II"), ("--source-leads", "V1", "v1")],
    ids=lambda words: words[0],
)
def test_a_name_given_twice_is_refused(archive, tmp_path, capsys, words):
    if words[0] == "--source-leads":
        archive = write_arrays(tmp_path / "arrays", records=4)[2:]
        assert "--source-leads names v1 twice" in refuse(capsys, tmp_path, "--input", *archive, *words)
    else:
        assert f"{words[0]} names" in refuse(capsys, tmp_path, "--input", archive, "--patient-folders", *words)
