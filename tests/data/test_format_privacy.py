"""Whatever a hospital wrote into a file, nothing but age, sex and a hash of the patient is given away."""

import h5py
import numpy as np
import pytest

from src.data.ecg_shards import ECGShards
from tests.data import formats
from tests.data.archive import build
from tests.data.test_formats import write_mimic

SECRETS = (
    "Zebedee",
    "Quagmire",
    "19411207",
    "1941-12-07",
    "07-DEC-1941",
    "Ward-Nine",
    "CART-4711",
    "MRN-0815",
    "02-MAR-2019",
)
"""Name, birth date, place, device and number of a person."""
ALL = " ".join(SECRETS)
META = {"id", "patient_id", "leads", "sampling_rate", "scale", "age", "sex"}


def leaks(folder, *texts):
    """(place, secret) of everything found in the bytes of a folder or in what was printed."""
    places = {path.name: path.read_bytes() for path in folder.iterdir()}
    places |= {f"text {number}": text.encode() for number, text in enumerate(texts)}
    wanted = [secret.encode() for secret in SECRETS]
    wanted += [secret.encode("utf-16-le") for secret in SECRETS]
    return [(place, secret) for place, data in places.items() for secret in wanted if secret.lower() in data.lower()]


def give_away(tmp_path, capsys, *words):
    """Build, and give back the samples' meta; a warning would be printed too."""
    code, out, err = build(capsys, "ecg", *words, "--output", tmp_path / "out")
    assert code == 0, err
    assert leaks(tmp_path / "out", out, err) == []
    with ECGShards(tmp_path / "out", "train", formats.LEADS) as shards:
        return [sample["meta"] for sample in shards.read(np.arange(len(shards)))]


def test_the_search_finds_what_is_there(tmp_path):
    (tmp_path / "a").write_bytes(b"xx mrn-0815 xx")
    assert leaks(tmp_path, "of ZEBEDEE") == [("a", b"MRN-0815"), ("text 0", b"Zebedee")]


def test_edf(tmp_path, capsys):
    places = {
        "patient": "MRN-0815 F 07-DEC-1941 Zebedee_Quagmire Ward-Nine",
        "recording": "Startdate 02-MAR-2019 CART-4711 Quagmire Ward-Nine",
        "transducer": ALL[:80],
        "filter": ALL[:80],
    }
    path = tmp_path / "in" / "Zebedee" / "MRN-0815.edf"
    names = [*formats.LEADS, "Zebedee 19411207"]
    units = np.concatenate([formats.ecg(), formats.ecg(1)[:1]])
    formats.write_edf(path, units, names, **places)
    (meta,) = give_away(tmp_path, capsys, "--input", tmp_path / "in", "--format", "edf")
    assert set(meta) == META and (meta["age"], meta["sex"]) == (77, 1)


def everywhere(text, attributes=True):
    """The XML with the secrets in a comment, an instruction, an attribute and an element of its own, all over."""
    planted = f"<!-- {ALL} --><?note {ALL}?><Comment by='{ALL}'>{ALL}<Deep>{ALL}</Deep></Comment>"
    for tag in ("</LeadData>", "</Waveform>", "</RestingECG>", "</series>", "</AnnotatedECG>", "</patient>"):
        text = text.replace(tag, planted + tag)
    return text.replace("</restingecgdata>", f"{planted}</restingecgdata>") + f"<!-- {ALL} -->"


PERSONS = {
    "muse": f"<PatientID>MRN-0815</PatientID><PatientAge>77</PatientAge><AgeUnits>YEARS</AgeUnits>"
    f"<Gender>FEMALE</Gender><DateofBirth>19411207</DateofBirth><PatientLastName>Quagmire</PatientLastName><Race>{ALL}</Race>"
    f"<PatientFirstName>Zebedee</PatientFirstName>",
    "hl7": f'<trialSubject><id root="1.2" extension="MRN-0815"/><code code="{ALL}"/><subjectDemographicPerson>'
    f'<name>Zebedee Quagmire</name><administrativeGenderCode code="F"/><birthTime value="19371207"/>'
    f'<raceCode code="{ALL}"/></subjectDemographicPerson></trialSubject>',
    "philips": f"<patientid>MRN-0815</patientid><name><lastname>Quagmire</lastname><firstname>Zebedee</firstname>"
    f"</name><age><dateofbirth>1941-12-07</dateofbirth><years>77</years></age><sex>Female</sex><unipid>{ALL}</unipid>",
}
MORE = (
    f"<TestDemographics><AcquisitionDate>1941-12-07</AcquisitionDate><Location>Ward-Nine</Location>"
    f"<AcquisitionDevice>CART-4711</AcquisitionDevice></TestDemographics><Diagnosis><DiagnosisStatement>"
    f"<StmtText>{ALL}</StmtText></DiagnosisStatement></Diagnosis><interpretation>{ALL}</interpretation>"
)


@pytest.mark.parametrize("kind", ["muse", "hl7", "philips"])
def test_xml(tmp_path, capsys, kind):
    write = {"muse": formats.muse, "hl7": formats.aecg, "philips": formats.philips}[kind]
    text = everywhere(write(formats.ecg(), names=formats.LEADS, person=PERSONS[kind], more=MORE))
    formats.write_text(tmp_path / "in" / "Quagmire_19411207.xml", text)
    (meta,) = give_away(tmp_path, capsys, "--input", tmp_path / "in", "--format", "xml")
    assert set(meta) == META and (meta["age"], meta["sex"]) == (77, 1)


@pytest.mark.parametrize("flags", [("--keep-ids",), ("--keep-ids", "--patient-folders")])
def test_hospital_ids_of_files_are_not_kept(tmp_path, capsys, flags):
    formats.write_text(tmp_path / "in" / "a.xml", formats.muse(formats.ecg(), formats.LEADS, person=PERSONS["muse"]))
    words = ("ecg", "--input", tmp_path / "in", "--format", "xml", *flags, "--output", tmp_path / "out")
    code, _, err = build(capsys, *words)
    assert code == 1 and "--keep-ids does nothing for a folder of XML files" in err
    table = formats.write_rows(tmp_path / "list.csv", [{"path": "a.xml"}])
    words = ("ecg", "--input", tmp_path / "in", "--table", table, "--keep-ids", "--output", tmp_path / "out")
    code, _, err = build(capsys, *words)
    assert code == 1 and "--keep-ids would put the patients of XML files" in err


def test_a_table_that_names_pseudonyms_may_keep_them(tmp_path, capsys):
    formats.write_text(tmp_path / "in" / "a.xml", formats.muse(formats.ecg(), formats.LEADS, person=PERSONS["muse"]))
    table = formats.write_rows(tmp_path / "list.csv", [{"path": "a.xml", "who": "subject-1"}])
    words = ("--input", tmp_path / "in", "--table", table, "--patient-column", "who", "--keep-ids")
    (meta,) = give_away(tmp_path, capsys, *words)
    assert meta["patient_id"] == "subject-1" and (meta["age"], meta["sex"]) == (77, 1)


def test_hdf5(tmp_path, capsys):
    exams = [formats.ecg(number) / 1000 for number in range(3)]
    columns = {"name": SECRETS[:3], "patient_id": ["MRN-0815"] * 3, "timey": SECRETS[2:5], "death": SECRETS[3:6]}
    root = formats.write_code15(tmp_path / "in", exams, **columns, nn_predicted_age=[ALL] * 3, age=[93, 90, 89])
    with h5py.File(root / "exams_part0.hdf5", "r+") as file:
        for place in (file, file["tracings"], file["exam_id"]):
            place.attrs["patient"], place.attrs["date"] = ALL, "1941-12-07"
        file["names"] = np.array([ALL.encode()] * 3)
        file[f"group/{SECRETS[0]}"] = np.zeros(3)
    metas = give_away(tmp_path, capsys, "--input", root)
    assert all(set(meta) == META - {"scale"} for meta in metas)
    assert sorted(meta["age"] for meta in metas) == [89, 90, 90]
    assert not any(str(value) == "77.7" for meta in metas for value in meta.values())


def test_mimic(tmp_path, capsys):
    root = write_mimic(tmp_path / "in", 2)
    for name in ("record_list.csv", "machine_measurements.csv"):
        text = (root / name).read_text().splitlines()
        text = [f"{line},{'note' if number == 0 else ALL}" for number, line in enumerate(text)]
        (root / name).write_text("\n".join(text).replace("2180-07-23", "1941-12-07").replace("6848296", "CART-4711"))
    for header in root.glob("files/**/*.hea"):
        header.write_text(header.read_text() + f"#<subject_id>: {ALL}\n# {ALL}\n")
    metas = give_away(tmp_path, capsys, "--input", root)
    assert all(set(meta) == META - {"age", "sex"} for meta in metas)


def test_matlab(tmp_path, capsys):
    formats.write_mat(tmp_path / "in" / "Zebedee.mat", formats.ecg().astype(np.int16))
    path = formats.write_mat73(tmp_path / "in" / "MRN-0815.mat", formats.ecg(1).astype(np.int16))
    with h5py.File(path, "r+") as file:
        file["name"], file["val"].attrs["who"] = ALL, ALL
    rows = [{"path": "Zebedee.mat", "who": "MRN-0815"}, {"path": "MRN-0815.mat", "who": "Quagmire"}]
    table = formats.write_rows(tmp_path / "list.csv", rows)
    words = ("--table", table, "--patient-column", "who", "--source-rate", "500", "--per-millivolt", "1000")
    metas = give_away(tmp_path, capsys, "--input", tmp_path / "in", *words)
    assert all(set(meta) == META - {"age", "sex"} for meta in metas)
