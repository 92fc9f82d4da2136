"""The checkpoint format: exact, whole or not at all, and independent of who wrote which range."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from src.checkpoints.manifest import DamagedCheckpoint, Manifest, read_manifest, write_manifest
from src.checkpoints.read import Checkpoint, checkpoint_folders, newest_checkpoint, open_checkpoint
from src.checkpoints.retention import clear_leftovers, retain, set_aside
from src.checkpoints.write import BackgroundWriter, _gathered, _Place, _write, write_checkpoint
from src.config.experiment import CheckpointConfig
from src.distributed.ranks import Ranks
from src.engines.engine import Piece

RANKS = Ranks(0, 1, torch.device("cpu"))
KEEP_ONE = CheckpointConfig(keep_last=1)
TENSORS = {
    ("model", "encoder.weight"): torch.randn(5, 3, generator=torch.Generator().manual_seed(0)),
    ("model", "scale"): torch.tensor([0.5]),
    ("exp_avg", "encoder.weight"): torch.full((5, 3), 1e-30),
    ("buffer", "count"): torch.tensor(7),
}


def make_manifest(step=10, attempt=1):
    return Manifest(
        step=step,
        samples=step * 4,
        attempt=attempt,
        world_size=1,
        engine="plain",
        optimizer_steps=step,
        identity={"seed": 0},
        config_hash="c",
        data_sha256="d",
        state={},
    )


def cut(world_size):
    """The pieces of each rank of a world."""
    pieces = [[] for _ in range(world_size)]
    for (kind, name), tensor in TENSORS.items():
        for rank in range(world_size):
            start, end = tensor.numel() * rank // world_size, tensor.numel() * (rank + 1) // world_size
            if start < end:
                pieces[rank].append(Piece(kind, name, tuple(tensor.shape), start, tensor.reshape(-1)[start:end]))
    return pieces


def write(folder, step=10, attempt=1):
    return write_checkpoint(folder, make_manifest(step, attempt), cut(1)[0], RANKS)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 40])
def test_tensors_come_back_bit_exact_from_any_number_of_writers(tmp_path, world_size):
    place = _Place(tmp_path, tmp_path)
    files = tuple(
        file
        for rank, pieces in enumerate(cut(world_size))
        for file in _write(place, replace(RANKS, rank=rank), _gathered(pieces, place))
    )
    write_manifest(tmp_path, replace(make_manifest(), files=files))
    checkpoint = open_checkpoint(tmp_path)
    for (kind, name), tensor in TENSORS.items():
        read = checkpoint.read(kind, name, tuple(tensor.shape))
        assert torch.equal(read, tensor) and read.dtype == tensor.dtype
    assert checkpoint.names("model") == {"encoder.weight", "scale"}


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("linked", [True, False])
def test_frozen_tensors_are_written_once_a_run_and_every_checkpoint_has_them(tmp_path, monkeypatch, background, linked):
    if not linked:
        monkeypatch.setattr("os.link", unlinkable)
    writer, places = BackgroundWriter(RANKS), set()
    for step in (1, 2, 3):
        pieces = [replace(piece, frozen=piece.name.startswith("encoder.")) for piece in cut(1)[0]]
        if background:
            writer.write(tmp_path, make_manifest(step), pieces, lambda path: retain(tmp_path, KEEP_ONE, path))
            writer.wait()
        else:
            retain(tmp_path, KEEP_ONE, write_checkpoint(tmp_path, make_manifest(step), pieces, RANKS))
        (folder,) = checkpoint_folders(tmp_path)
        (file,) = folder.glob("frozen-*")
        frozen = file.stat()
        places.add((frozen.st_ino, frozen.st_mtime_ns))
        checkpoint = open_checkpoint(folder)
        for (kind, name), tensor in TENSORS.items():
            assert torch.equal(checkpoint.read(kind, name, tuple(tensor.shape)), tensor)

    assert len(places) == (1 if linked else 3)


def unlinkable(*_):
    raise OSError("no links here")


@pytest.mark.parametrize("harm", ["manifest.json", "frozen-*", None])
def test_frozen_tensors_are_written_again_where_the_newest_checkpoint_is_damaged(tmp_path, harm):
    pieces = [replace(piece, frozen=True) for piece in cut(1)[0]]
    first = write_checkpoint(tmp_path, make_manifest(1), pieces, RANKS)
    (file,) = first.glob(harm or "frozen-*")
    if harm is None:
        file.unlink()
    else:
        file.write_text("{")
    second = open_checkpoint(write_checkpoint(tmp_path, make_manifest(2), pieces, RANKS))
    assert {(kind, name) for kind, name, _ in second.shapes()} == TENSORS.keys()


def test_a_network_that_is_frozen_later_is_written_then(tmp_path):
    """Its tensors are no longer trained, so those of the folder's frozen files are not all there are."""
    for step, names in enumerate([["scale"], ["scale", "encoder.weight"]]):
        pieces = [replace(piece, frozen=piece.name in names) for piece in cut(1)[0]]
        found = open_checkpoint(write_checkpoint(tmp_path, make_manifest(step), pieces, RANKS))
        assert {(kind, name) for kind, name, _ in found.shapes()} == TENSORS.keys()


def test_the_manifest_comes_back_equal(tmp_path):
    path = write(tmp_path)
    manifest = read_manifest(path)
    assert replace(manifest, files=()) == make_manifest()
    assert path.name == "step-00000010.attempt-1" and not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("file", ["manifest.json", "rank-00000.safetensors"])
@pytest.mark.parametrize("damage", ["byte", "truncation", "missing"])
def test_any_damage_is_named(tmp_path, file, damage):
    path = write(tmp_path) / file
    whole = path.read_bytes()
    for place in range(0, len(whole), 7) if damage == "byte" else [len(whole) // 2]:
        if damage == "byte":
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        elif damage == "truncation":
            path.write_bytes(whole[:place])
        else:
            path.unlink()
        try:
            opened = open_checkpoint(path.parent)
        except DamagedCheckpoint as error:
            assert file in str(error)
        else:  # white space between the manifest's tokens is the only byte that carries nothing
            assert file == "manifest.json" and damage == "byte"
            assert opened == Checkpoint(path.parent, opened.manifest)
            assert json.loads(path.read_text()) == json.loads(whole)


def test_the_newest_whole_one_is_found_and_damaged_ones_are_named(tmp_path):
    write(tmp_path, 10), write(tmp_path, 20)
    newest = write(tmp_path, 30, attempt=2)
    assert newest_checkpoint(tmp_path)[0].folder == newest
    data = newest / "rank-00000.safetensors"
    data.write_bytes(data.read_bytes()[:-1])
    found, damages = newest_checkpoint(tmp_path)
    assert found.manifest.step == 20 and len(damages) == 1 and str(data) in str(damages[0])
    set_aside(damage.folder for damage in damages)
    assert newest_checkpoint(tmp_path) == (found, [])
    for step in (25, 30):
        retain(tmp_path, CheckpointConfig(keep_last=3), write(tmp_path, step, attempt=3))
    assert [int(path.name[5:13]) for path in checkpoint_folders(tmp_path)] == [30, 25, 20]
    assert (tmp_path / "step-00000030.attempt-2.damaged").is_dir()


def test_half_written_folders_are_not_checkpoints_and_are_cleared_by_a_later_attempt(tmp_path):
    whole = write(tmp_path, 10)
    for name in ("step-00000020.attempt-1.partial", "step-00000005.attempt-1.removed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rank-00000.safetensors").write_bytes(b"half")
    successor = tmp_path / "step-00000020.attempt-2.partial"
    successor.mkdir()
    assert checkpoint_folders(tmp_path) == [whole]
    clear_leftovers(tmp_path, attempt=2)
    assert sorted(tmp_path.iterdir()) == [whole, successor]


def test_an_older_attempts_checkpoint_of_the_same_step_is_left_alone(tmp_path):
    first, second = write(tmp_path, 10, attempt=1), write(tmp_path, 10, attempt=2)
    assert checkpoint_folders(tmp_path) == [second, first]


def test_retention_keeps_the_newest_and_the_multiples(tmp_path):
    config = CheckpointConfig(keep_last=2, keep_every=20)
    for step in range(5, 55, 5):
        retain(tmp_path, config, write(tmp_path, step))
    assert [int(path.name[5:13]) for path in checkpoint_folders(tmp_path)] == [50, 45, 40, 20]


def test_an_orphan_never_removes_what_a_later_attempt_has_written(tmp_path):
    later = [write(tmp_path, step, attempt=2) for step in (5, 40, 50)]
    for step in (10, 20, 30):
        retain(tmp_path, CheckpointConfig(keep_last=1), write(tmp_path, step, attempt=1))
    assert sorted(checkpoint_folders(tmp_path)) == sorted([*later, tmp_path / "step-00000030.attempt-1"])


@pytest.mark.parametrize("background", [False, True])
def test_a_checkpoint_that_is_not_allowed_in_the_end_does_not_become_one(tmp_path, background):
    def taken_over():
        raise ValueError("taken over")

    with pytest.raises(ValueError, match="taken over"):
        if background:
            writer = BackgroundWriter(RANKS)
            writer.write(tmp_path, make_manifest(10), cut(1)[0], print, taken_over)
            writer.wait()
        else:
            write_checkpoint(tmp_path, make_manifest(10), cut(1)[0], RANKS, taken_over)
    assert not checkpoint_folders(tmp_path)


def test_what_is_cleared_can_not_become_a_checkpoint_any_more(tmp_path, monkeypatch):
    """An orphan may be about to rename it; its folder has lost its name before the first file goes."""
    partial = tmp_path / "step-00000020.attempt-1.partial"
    partial.mkdir()
    (partial / "manifest.json").touch()
    named = []
    remove = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", lambda *words, **named_: (named.append(partial.exists()), remove(*words)))
    clear_leftovers(tmp_path, attempt=2)
    assert named == [False] and not list(tmp_path.iterdir())


def test_a_tensor_of_another_shape_is_refused(tmp_path):
    checkpoint = open_checkpoint(write(tmp_path))
    with pytest.raises(ValueError, match=r"encoder\.weight has shape \[5, 3\], the model wants \[5, 4\]"):
        checkpoint.read("model", "encoder.weight", (5, 4))


def test_another_format_is_not_called_damage(tmp_path):
    path = write(tmp_path)
    write_manifest(path, replace(read_manifest(path), format=99))
    with pytest.raises(ValueError, match="format 99, this version reads 1") as raised:
        newest_checkpoint(tmp_path)
    assert not isinstance(raised.value, DamagedCheckpoint)


def test_the_background_writes_what_was_there_when_it_was_asked(tmp_path):
    writer, weights, told = BackgroundWriter(RANKS), torch.zeros(1_000_000), []
    for step in (1, 2):
        weights.fill_(step)
        pieces = [Piece("model", "weight", (1_000_000,), 0, weights)]
        writer.write(tmp_path, make_manifest(step), pieces, told.append)
    weights.fill_(3)
    writer.wait()
    assert [path.name for path in told] == ["step-00000001.attempt-1", "step-00000002.attempt-1"]
    for step, path in enumerate(told, 1):
        assert (open_checkpoint(path).read("model", "weight", (1_000_000,)) == step).all()
    assert not list(tmp_path.rglob("*.json.draft")) and not list(tmp_path.rglob("*.safetensors.json"))


def test_a_checkpoint_that_the_background_could_not_write_is_told_by_the_next_call(tmp_path):
    writer = BackgroundWriter(RANKS)
    in_the_way = tmp_path / "step-00000010.attempt-1"
    in_the_way.mkdir()
    (in_the_way / "file").touch()
    writer.write(tmp_path, make_manifest(10), cut(1)[0], print)
    with pytest.raises(OSError, match="step-00000010"):
        writer.wait()
    writer.wait()
