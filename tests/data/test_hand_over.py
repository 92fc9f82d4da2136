"""What a worker hands over is what it packed, and memory is used again when nobody looks at it any more."""

import gc
import mmap
import multiprocessing
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from src.data.hand_over import ROOM, SLOTS, HandOver
from src.data.loader import Loaded
from src.memory import empty, set_allocator

FORK = multiprocessing.get_context("fork")


def _send(sender, hand_over, batch, worker):
    hand_over.fill(worker)
    sender.send(hand_over.pack(batch() if callable(batch) else batch))


def packed(hand_over, batch, worker=0):
    """The message of another process."""
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_send, args=(sender, hand_over, batch, worker))
    process.start()
    message = receiver.recv()
    process.join()
    return message


def handed(hand_over, batch, worker=0):
    """A batch that another process has packed, opened here."""
    return packed(hand_over, batch, worker).open()


BATCHES = {
    "tensors": {"ecg": torch.randn(4, 2, 30), "keep": torch.arange(120).reshape(4, 30) % 3 == 0},
    "types": {str(kind): torch.arange(24).reshape(2, 3, 4).to(kind) for kind in (torch.uint8, torch.int64, torch.half)},
    "bfloat16, which numpy has not": {"x": torch.randn(3, 5).bfloat16(), "one": torch.tensor(2.5).bfloat16()},
    "8 bits, turned round": {"x": torch.randn(3, 5).to(torch.float8_e4m3fn).T, "y": torch.ones(9).bfloat16()[::2]},
    "sparse": {"x": torch.eye(3).bfloat16().to_sparse()},
    "a number, nothing, one element": {"a": torch.tensor(3.5), "b": torch.empty(0, 4), "c": torch.ones(1)},
    "turned round": {"a": torch.randn(3, 4, 5).permute(2, 0, 1), "b": torch.randn(3, 4).T, "c": torch.randn(9)[::2]},
    "images, channels last": {"image": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)},
    "arrays": {"keys": np.arange(7, dtype=np.uint64), "names": np.array(["a", "bc"]), "turned": np.eye(3)[::-1, ::2]},
    "others": {"keys": ["a", "b"], "told": {"rate": 2.5, "lost": None}, "text": "grün"},
    "a gradient": {"x": torch.ones(3, requires_grad=True)},
    "no arrays": {},
}


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_a_batch_comes_as_it_was_packed(batch):
    found = handed(HandOver(1), batch)
    assert found.keys() == batch.keys()
    for name, value in batch.items():
        assert type(found[name]) is type(value)
        if isinstance(value, torch.Tensor):
            assert_close(found[name], value, rtol=0, atol=0)
            assert found[name].requires_grad == value.requires_grad
        elif isinstance(value, np.ndarray):
            assert found[name].dtype == value.dtype and np.array_equal(found[name], value)
        else:
            assert found[name] == value


def test_what_is_handed_over_can_be_changed_and_is_aligned():
    found = handed(HandOver(1), {"odd": torch.ones(3, dtype=torch.uint8), "x": torch.ones(5), "y": np.ones(5)})
    found["x"] += 1
    found["y"] += 1
    assert found["x"].tolist() == found["y"].tolist() == [2.0] * 5
    assert found["odd"].tolist() == [1, 1, 1]
    assert all(address % 64 == 0 for address in (found["x"].data_ptr(), found["y"].ctypes.data))


def test_a_slot_is_used_again_when_the_last_tensor_of_its_batch_is_gone():
    hand_over = HandOver(2)
    first = handed(hand_over, {"a": torch.full((100,), 1.0), "b": torch.full((100,), 2.0)}, worker=1)
    place = first["a"].data_ptr()
    part = first.pop("b")[3:5]
    del first
    second = handed(hand_over, {"a": torch.full((100,), 3.0)}, worker=1)
    assert second["a"].data_ptr() == place + ROOM and part.tolist() == [2.0, 2.0]
    del part
    gc.collect()
    third = handed(hand_over, {"a": torch.full((100,), 4.0)}, worker=1)
    assert third["a"].data_ptr() == place and second["a"][0] == 3.0


def test_batches_that_are_all_kept_stay_what_they_are():
    """More than there are slots: the others come through the queue."""
    hand_over = HandOver(2)
    kept = [handed(hand_over, {"x": torch.full((50,), float(n))}, worker=n % 2) for n in range(2 * SLOTS + 9)]
    assert [float(batch["x"].unique()) for batch in kept] == list(range(2 * SLOTS + 9))


def test_workers_have_slots_of_their_own():
    hand_over = HandOver(3)
    places = {handed(hand_over, {"x": torch.ones(9)}, worker)["x"].data_ptr() for worker in (0, 1, 2)}
    assert len(places) == 3


def test_who_is_forked_from_the_rank_gives_no_slot_back():
    hand_over = HandOver(1)
    found = handed(hand_over, {"x": torch.ones(9)})
    if (process := os.fork()) == 0:
        del found
        gc.collect()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(process, 0)
    assert handed(hand_over, {"x": torch.zeros(9)})["x"].data_ptr() == found["x"].data_ptr() + ROOM
    assert found["x"].tolist() == [1.0] * 9


def test_a_batch_outlives_its_loader():
    found = handed(HandOver(1), {"x": torch.ones(9)})
    gc.collect()
    assert found["x"].tolist() == [1.0] * 9


def test_a_batch_larger_than_a_slot_comes_through_the_queue(monkeypatch):
    monkeypatch.setattr("src.data.hand_over.ROOM", 16 * mmap.PAGESIZE)
    hand_over = HandOver(1)
    small, large = (torch.arange(size, dtype=torch.uint8) for size in (16 * mmap.PAGESIZE, 16 * mmap.PAGESIZE + 1))
    assert_close(handed(hand_over, {"x": small})["x"], small)
    assert_close(handed(hand_over, {"x": large})["x"], large)


def _limited(sender, addresses):
    resource.setrlimit(resource.RLIMIT_AS, (addresses, resource.RLIM_INFINITY))
    try:
        found = handed(HandOver(2), {"x": torch.ones(1000)})["x"].sum().item()
    except ValueError as error:
        found = str(error)
    sender.send(found)


@pytest.mark.parametrize(("more", "found"), [(12 << 30, 1000.0), (600 << 20, 1000.0), (300 << 20, "ulimit -v")])
def test_addresses_may_be_limited(more, found):
    """Slots of 4 GiB would take 128 GiB for two workers, those of 256 MiB 8 GiB, and those of 16 MiB 512 MiB."""
    taken = mmap.PAGESIZE * int(Path("/proc/self/statm").read_text().split()[0])
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_limited, args=(sender, taken + more))
    process.start()
    told = receiver.recv()
    process.join()
    assert told == found or (isinstance(found, str) and found in told)


def test_memory_is_taken_for_what_batches_fill():
    hand_over = HandOver(8)
    for _ in range(10):
        assert handed(hand_over, {"x": torch.ones(5_000_000)})["x"].sum() == 5_000_000
    assert 20e6 <= shared() < 20.1e6


def shared():
    """Bytes of shared memory that this process has looked at."""
    sizes = {}
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            mapping = line
        elif line.startswith("Rss:"):
            sizes[mapping] = 1024 * int(line.split()[1])
    return sum(size for mapping, size in sizes.items() if "memfd:batches" in mapping)


@pytest.mark.gpu
def test_a_batch_is_pinned_as_it_is_opened():
    hand_over, loaded = HandOver(1), Loaded([{"x": torch.ones(5), "keys": ["a"]}], [])
    found = packed(hand_over, loaded).pin_memory()
    assert found.batches[0]["x"].is_pinned() and found.batches[0]["keys"] == ["a"]


def test_what_is_made_in_its_slot_is_not_copied():
    """A batch, its second part in memory of its own, and one that was made twice."""
    made = []

    def batch():
        first, wasted, last = empty((3, 4)), empty((1000,)), empty((2,))
        first[:], wasted[:], last[:] = 1.0, 2.0, 3.0
        made.extend([first, last])
        return {"first": torch.from_numpy(first), "own": torch.full((7,), 4.0), "last": last, "part": first[1]}

    hand_over = HandOver(1)
    for turn in range(3):
        found = handed(hand_over, batch)
        assert [float(np.asarray(found[name]).mean()) for name in ("first", "own", "last", "part")] == [1, 4, 3, 1]
        assert found["part"].ctypes.data == found["first"].data_ptr() + 16
        assert found["last"].ctypes.data - found["first"].data_ptr() == 64 + 4032, turn
        del found


def test_what_is_made_in_a_slot_may_not_be_handed_over():
    """It is no array any more; the slot is free for the next batch."""

    def batch():
        made = empty((3,))
        made[:] = 2.0
        return {"list": made.tolist()}

    hand_over = HandOver(1)
    for _ in range(SLOTS + 1):
        assert handed(hand_over, batch) == {"list": [2.0] * 3}
    assert handed(hand_over, {"x": torch.ones(9)})["x"].data_ptr() == hand_over._address


def test_what_numpy_has_not_is_handed_over_in_a_slot():
    hand_over = HandOver(1)
    found = handed(hand_over, {"x": torch.arange(9).bfloat16()})["x"]
    assert found.data_ptr() == hand_over._address and found.tolist() == list(range(9))


def test_memory_of_a_batch_that_had_no_room_is_given_back(monkeypatch):
    monkeypatch.setattr("src.data.hand_over.ROOM", 16 * mmap.PAGESIZE)
    hand_over = HandOver(1)
    hand_over.fill(0)
    try:
        before = shared()
        large = {"x": torch.ones(15 * mmap.PAGESIZE, dtype=torch.uint8), "y": torch.ones(mmap.PAGESIZE)}
        assert hand_over.pack(large).open()["x"].sum() == 15 * mmap.PAGESIZE
        assert shared() - before == 15 * mmap.PAGESIZE
        hand_over.give_back()
        assert shared() == before
    finally:
        set_allocator(None)


def test_a_worker_makes_its_batches_in_slots_and_its_rank_does_not():
    assert empty((2, 3)).base is None
    hand_over = HandOver(1)
    hand_over.fill(0)
    try:
        assert empty((2, 3)).base is not None and empty((2, 3)).dtype == np.float32
        assert empty((1 << 31,)).base is None  # 8 GiB of addresses: larger than a slot
    finally:
        set_allocator(None)


def test_memory_of_slots_that_are_used_no_more_is_given_back():
    """Of eight batches that were kept at a time one place stays in use; what is looked at still is not touched."""
    before = shared()
    hand_over = HandOver(1)
    hand_over.fill(0)
    try:
        kept = [hand_over.pack({"x": torch.full((1_000_000,), float(n))}).open()["x"] for n in range(8)]
        assert [float(tensor.sum()) for tensor in kept] == [
            n * 1e6 for n in range(8)
        ] and shared() - before == 8 * 4_001_792
        hand_over.give_back()
        last = kept[-1]
        del kept
        assert hand_over.pack({"x": torch.ones(9)}).open()["x"].sum() == 9
        assert shared() - before == 8 * 4_001_792
        hand_over.give_back()
        assert shared() - before == 2 * 4_001_792 and last.sum() == 7e6
        assert hand_over.pack({"x": torch.ones(9), "y": torch.ones(1_000_000)}).open()["y"].sum() == 1e6
    finally:
        set_allocator(None)


def test_memory_of_a_batch_that_is_to_be_packed_is_not_given_back():
    """Its slot has memory of another batch, long ago, and was not filled since the memory was last given back."""
    hand_over = HandOver(1)
    hand_over.fill(0)
    try:
        kept = [hand_over.pack({"x": torch.full((9000,), float(n))}).open()["x"] for n in range(2)]
        hand_over.give_back()
        del kept[1]
        made = empty((9000,))
        made[:] = 7.0
        hand_over.give_back()
        assert hand_over.pack({"x": torch.from_numpy(made)}).open()["x"].unique().tolist() == [7.0]
    finally:
        set_allocator(None)
