"""Whatever a hospital or a tool wrote into a volume's file, nothing of it but age, sex and a hash is given away."""

import gzip
import struct

import numpy as np
import pytest

from tests.data.archive import build
from tests.data.test_ct_build import SHAPE, ct, samples, xyz
from tests.data.test_format_privacy import ALL, SECRETS, leaks
from tests.data.volumes import chest, write_nifti, write_npz, write_nrrd, write_series

META = {"id", "patient_id", "orientation", "spacing", "source_shape", "source_spacing", "units", "stored"}
NAME = "Quagmire_Zebedee_19411207"


def give_away(tmp_path, capsys, source, *words):
    """Build, compressed and not, and search the shards and what was printed; returns the sample's meta."""
    for output, more in (("plain", ()), ("packed", ("--compress",))):
        told = ct(capsys, source, tmp_path / output, *words, *more)
        assert leaks(tmp_path / output, told) == []
    (sample,) = samples(tmp_path / "plain").values()
    return sample["meta"]


def test_nifti(tmp_path, capsys):
    path = write_nifti(tmp_path / "in" / "Zebedee" / f"{NAME}.nii.gz", xyz())
    raw = bytearray(gzip.decompress(path.read_bytes()))
    for start, size in ((14, 18), (148, 80), (228, 24), (328, 16)):  # db_name, descrip, aux_file, intent_name
        raw[start : start + size] = ALL.encode()[:size].ljust(size, b"\0")
    texts = [
        (6, ALL),
        (0, f"DICOM: {ALL}"),
        (2, "Zebedee^Quagmire MRN-0815 1941-12-07 Ward-Nine CART-4711 07-DEC-1941"),
    ]
    extensions = b"".join(
        struct.pack("<ii", size := (len(text) + 8 + 15) // 16 * 16, code) + text.encode().ljust(size - 8, b"\0")
        for code, text in texts
    )
    raw[108:112] = struct.pack("<f", 352 + len(extensions))
    path.write_bytes(gzip.compress(bytes(raw[:348]) + b"\1\0\0\0" + extensions + bytes(raw[352:]) + ALL.encode()))
    meta = give_away(tmp_path, capsys, tmp_path / "in", "--patient-folders")
    assert set(meta) == META


def test_nrrd(tmp_path, capsys):
    for name in ("nrrd", "nhdr"):
        path = tmp_path / name / "Zebedee" / f"{NAME}.{name}"
        header = {"content": ALL, "sample units": "Ward-Nine", "PatientName": "Quagmire", "note": ALL}
        write_nrrd(path, xyz(), np.diag([1.5, 1.5, 2.0]), **header)
        data = path.read_bytes()
        head = f'# {ALL}\nDICOM_0010_0030:=19411207\nspace units: "mm" "mm" "mm"\n'.encode()
        path.write_bytes(data.replace(b"type: ", head + b"type: ", 1))
        meta = give_away(tmp_path / name, capsys, tmp_path / name, "--patient-folders")
        assert set(meta) == META


def test_npz(tmp_path, capsys):
    secret = np.frombuffer(ALL.encode(), np.uint8)
    write_npz(tmp_path / "in" / "Zebedee" / f"{NAME}.npz", ct=chest(SHAPE)[None], who=secret, note=np.array([ALL]))
    words = ("--array", "ct", "--patient-folders", "--orientation", "keep")
    meta = give_away(tmp_path, capsys, tmp_path / "in", *words)
    assert set(meta) == META


def planted(number, slice_):
    """A slice with the secrets wherever a device may write."""
    texts = (
        *("AccessionNumber", "AcquisitionDeviceProcessingDescription", "AdditionalPatientHistory", "Allergies"),
        *("BranchOfService", "ClinicalTrialSiteName", "ContrastBolusAgent", "ConvolutionKernel", "CountryOfResidence"),
        *("DerivationDescription", "DetectorID", "DeviceSerialNumber", "EthnicGroup", "FilterType", "ImageComments"),
        *("InstitutionAddress", "InstitutionName", "InstitutionalDepartmentName", "IssuerOfPatientID", "Manufacturer"),
        *("ManufacturerModelName", "MilitaryRank", "Occupation", "OperatorsName", "OtherPatientNames"),
        *("PatientAddress", "PatientBirthName", "PatientComments", "PatientMotherBirthName", "PatientName"),
        *("PatientReligiousPreference", "PatientTelephoneNumbers", "PerformedProcedureStepDescription"),
        *(
            "PerformingPhysicianName",
            "PhysiciansOfRecord",
            "ProtocolName",
            "ReferringPhysicianName",
            "RegionOfResidence",
        ),
        *(
            "RequestedProcedureDescription",
            "RequestingPhysician",
            "SeriesDescription",
            "SoftwareVersions",
            "StationName",
        ),
        *("StudyComments", "StudyDescription", "StudyID", "BodyPartExamined", "PatientPosition"),
    )
    for name in texts:
        setattr(slice_, name, ALL[:64])
    slice_.PatientID = "MRN-0815"
    slice_.PatientBirthDate = slice_.PatientAlternativeCalendar = "19411207"
    slice_.StudyDate = slice_.AcquisitionDate = slice_.SeriesDate = slice_.ContentDate = "20190302"
    slice_.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", "Zebedee"]
    slice_.FrameOfReferenceUID = "1.2.19411207"
    block = slice_.private_block(0x0019, f"Quagmire {ALL[:40]}", create=True)
    block.add_new(0x10, "LT", ALL)
    slice_.add_new(0x00100021, "LO", ALL[:64])
    slice_.add_new(0x60003000, "OW", ALL.encode().ljust(len(ALL) + len(ALL) % 2, b" "))
    return slice_


@pytest.mark.parametrize("age", ["077Y", None])
def test_dicom(tmp_path, capsys, age):
    folder = tmp_path / "in" / NAME
    paths = write_series(
        folder, chest(SHAPE), uid="1.2.19411207", change=planted, **({"PatientAge": age} if age else {})
    )
    for path in paths:  # before the header too
        path.write_bytes(ALL.encode()[:128].ljust(128) + path.read_bytes()[128:])
        assert b"Zebedee" in path.read_bytes()
    meta = give_away(tmp_path, capsys, tmp_path / "in")
    assert set(meta) == META | {"age"} and meta["age"] == 77 and len(meta["patient_id"]) == 20


def test_what_is_rejected_is_not_quoted(tmp_path, capsys):
    """Of a record that can't be used neither the command nor the list of reasons repeats a header."""

    def wrong(number, slice_):
        planted(number, slice_)
        slice_.Modality = "Zebedee"
        return slice_

    write_series(tmp_path / "in" / "a", chest(SHAPE), change=wrong)
    path = write_nrrd(tmp_path / "in" / "b.nrrd", xyz(), np.eye(3))
    path.write_bytes(path.read_bytes().replace(b"type: ", f"{SECRETS[0]} {SECRETS[1]}\ntype: ".encode(), 1))
    path = write_nrrd(tmp_path / "in" / "c.nrrd", xyz(), np.eye(3))
    path.write_bytes(path.read_bytes().replace(b"encoding: gzip", b"encoding: Zebedee", 1))
    write_nrrd(tmp_path / "in" / "d.nrrd", xyz(), np.eye(3), **{"space units": ["Zebedee", "mm", "mm"]})
    write_nifti(tmp_path / "in" / "good.nii", xyz())
    told = ct(capsys, tmp_path / "in", tmp_path / "out", "--no-patients")
    reasons = (tmp_path / "out.private" / "rejected.csv").read_text()
    assert leaks(tmp_path / "out", told, reasons) == [] and reasons.count("\n") >= 5


def test_the_search_would_find_them(tmp_path, capsys):
    """A text column goes along as it is: the search sees what a shard holds."""
    write_nifti(tmp_path / "in" / "a.nii", xyz())
    (tmp_path / "t.csv").write_text(f"img_path,findings\na.nii,{ALL}\n")
    words = ("ct", "--input", tmp_path / "in", "--table", tmp_path / "t.csv", "--no-patients", "--units", "hu")
    code, _, err = build(capsys, *words, "--output", tmp_path / "out")
    assert code == 0, err
    assert {secret for _, secret in leaks(tmp_path / "out")} == {secret.encode() for secret in SECRETS}
