"""Batches on their way from a loader's workers to their rank, in memory that both share and that is used again.

torch's queue would make a file of shared memory for each tensor of each batch and send its descriptor through a socket
of a further thread, and whoever gets it would fault its pages in. This needs no room in /dev/shm, and nothing is left
behind by whoever is killed.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import pickle
import weakref
from collections.abc import Sequence
from io import BytesIO
from itertools import count
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data._utils.pin_memory import pin_memory

from src.memory import set_allocator

SLOTS = 16
"""Batches of a worker that can be with their rank at a time; further ones go through the queue, which is slow."""
ROOM = 1 << 32
"""Bytes of a slot at most. They are addresses: memory is taken for what a batch fills, and for the slots in use."""
LESS = 16
"""By which a slot has fewer bytes where there are not as many addresses: 256 MiB, else 16."""
ALIGNED = 64
"""Bytes; of a line of the processor's cache."""

WITHOUT_NUMPY = {
    torch.bfloat16: torch.int16,
    torch.float8_e4m3fn: torch.uint8,
    torch.float8_e4m3fnuz: torch.uint8,
    torch.float8_e5m2: torch.uint8,
    torch.float8_e5m2fnuz: torch.uint8,
}
"""Types that numpy has not, and those whose bits they are handed over as."""


class HandOver:
    """Slots for the batches of each worker, made by their rank before they are forked."""

    _here: ClassVar[weakref.WeakValueDictionary[int, HandOver]] = weakref.WeakValueDictionary()
    """Those of this process, by number: a message names its own."""
    _numbers: ClassVar[count[int]] = count()

    def __init__(self, workers: int) -> None:
        self.number = next(self._numbers)
        self._here[self.number] = self
        self._taken = mmap.mmap(-1, workers * SLOTS)
        """A byte for each slot: 1 from when its worker fills it until nothing of its batch is in use any more."""
        self._memory, self._room = _shared(workers * SLOTS)
        self._address = _address(self._memory)
        self._slots = range(0)
        """Of this worker."""
        self._slot: int | None = None
        """That of the batch that is being made, filled up to `_end`."""
        self._end = 0
        self._sizes: dict[int, int] = {}
        """Bytes of each slot that have memory."""
        self._used: set[int] = set()

    def fill(self, worker: int) -> None:
        """This process is a worker: what it makes by src.memory is where it will be handed over."""
        self._slots = range(worker * SLOTS, (worker + 1) * SLOTS)
        self._slot, self._end = None, 0
        set_allocator(self._allocate)

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any] | None:
        """An array in the slot of the batch that is being made; None if there is no room."""
        count = math.prod(shape)
        start = self._place(count * dtype.itemsize)
        return None if start is None else np.frombuffer(self._memory, dtype, count, start).reshape(shape)

    def _place(self, size: int) -> int | None:
        """Where the slot has so many bytes for the batch that is being made."""
        if self._slot is None:
            found = self._taken.find(b"\0", self._slots.start, self._slots.stop)  # the first: few are ever touched
            self._slot, self._end = None if found < 0 else found, 0
        start = -(-self._end // ALIGNED) * ALIGNED
        if self._slot is None or start + size > self._room:
            return None
        self._end = start + size
        return self._slot * self._room + start

    def pack(self, batch: Any) -> Handed:
        """The message of a worker that stands for a batch; arrays and tensors that are in no slot are copied there."""
        buffers: list[pickle.PickleBuffer] = []
        head = _pickled(batch, buffers)
        places = [place for buffer in buffers if (place := self._placed(buffer.raw()))]
        slot, self._slot = self._slot, None
        if slot is not None:
            self._sizes[slot] = max(self._sizes.get(slot, 0), self._end)
        if slot is None or not places or len(places) < len(buffers):
            return Handed(self.number, _pickled(batch, None), None, ())
        self._taken[slot] = 1
        self._used.add(slot)
        return Handed(self.number, head, slot, places)

    def _placed(self, buffer: memoryview) -> tuple[int, int] | None:
        """Where in the memory an array's bytes are, which are copied there if need be."""
        start = _address(buffer) - self._address
        if self._slot is None or not 0 <= start - self._slot * self._room <= self._end - buffer.nbytes:
            place = self._place(buffer.nbytes)
            if place is None:
                return None
            self._memory[place : place + buffer.nbytes] = buffer
            start = place
        return start, start + buffer.nbytes

    def give_back(self) -> None:
        """The memory of slots that this worker has not filled since the last time: a rank was slow once, say."""
        used = self._used | {self._slot}  # a batch that is made already, and is to be packed yet, lies there
        for slot in [slot for slot in self._sizes if slot not in used and not self._taken[slot]]:
            size = -(-self._sizes.pop(slot) // mmap.PAGESIZE) * mmap.PAGESIZE
            self._memory.madvise(mmap.MADV_REMOVE, slot * self._room, size)
        self._used.clear()

    def opened(self, head: bytes, slot: int, places: Sequence[tuple[int, int]]) -> Any:
        """The batch of a slot, whose worker has the slot back when the last array of the batch is dropped."""
        first = slot * self._room
        held = np.frombuffer(self._memory, np.uint8, max(stop for _, stop in places) - first, first)
        weakref.finalize(held, self._release, slot, os.getpid()).atexit = False
        buffers = [held.data[start - first : stop - first] for start, stop in places]
        return pickle.loads(head, buffers=buffers)  # noqa: S301 of our own worker

    def _release(self, slot: int, process: int) -> None:
        if process == os.getpid():  # one that was forked from the rank drops its copy alone
            self._taken[slot] = 0


class Handed:
    """What goes through the queue in the place of a batch."""

    def __init__(self, number: int, head: bytes, slot: int | None, places: Sequence[tuple[int, int]]) -> None:
        self._number, self._head, self._slot, self._places = number, head, slot, places

    def open(self) -> Any:
        """The batch; to be asked for once, by the rank."""
        if self._slot is None:
            return pickle.loads(self._head)  # noqa: S301 of our own worker
        return HandOver._here[self._number].opened(self._head, self._slot, self._places)

    def pin_memory(self) -> Any:
        """The batch in memory that a GPU reads by itself, for torch's thread that does so."""
        return pin_memory(self.open())


def _shared(slots: int) -> tuple[mmap.mmap, int]:
    """Memory of slots, and the bytes of each: fewer where addresses or files are limited (ulimit -v, -f).

    Raises:
        ValueError: they are limited to less than that.
    """
    for room in (ROOM, ROOM // LESS, ROOM // LESS**2):
        file = os.memfd_create("batches")
        try:
            os.truncate(file, slots * room)
            return mmap.mmap(file, slots * room), room
        except OSError as error:
            if error.errno not in (errno.ENOMEM, errno.EFBIG):
                raise
        finally:
            os.close(file)
    raise ValueError(
        f"the {slots // SLOTS} loader workers of a rank get no {slots * room / 1e9:.2g} GB of addresses for their"
        " batches: raise `ulimit -v` and `ulimit -f` or lower data.workers"
    )


def _address(buffer: mmap.mmap | memoryview) -> int:
    return int(np.frombuffer(buffer, np.uint8).__array_interface__["data"][0])


class _Pickler(pickle.Pickler):
    """Takes tensors for the arrays that they are: what torch has for them goes through torch.save."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is not Tensor or value.requires_grad:
            return NotImplemented
        if value.dtype in WITHOUT_NUMPY and value.layout is torch.strided and value.device.type == "cpu":
            return _of_bits, (value.view(WITHOUT_NUMPY[value.dtype]), value.dtype)
        try:
            array = value.numpy()
        except (TypeError, RuntimeError):  # not strided, or of another type that numpy has not
            return NotImplemented
        if not (array.flags.c_contiguous or array.flags.f_contiguous):
            array = np.ascontiguousarray(array)
        return torch.from_numpy, (array,)


def _of_bits(bits: Tensor, kind: torch.dtype) -> Tensor:
    return bits.view(kind)


def _pickled(batch: Any, buffers: list[pickle.PickleBuffer] | None) -> bytes:
    """A batch without its arrays, which are added to `buffers`; or with them, where there are none."""
    head = BytesIO()
    _Pickler(head, protocol=5, buffer_callback=None if buffers is None else buffers.append).dump(batch)
    return head.getvalue()
