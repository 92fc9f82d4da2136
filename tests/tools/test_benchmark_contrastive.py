"""The table of the contrastive losses' memory: SigLIP's ring stays flat as ranks are added, and what gathers grows."""

import re

import pytest

from tests.commands import succeed

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]


def test_the_ring_does_not_grow_with_the_ranks_and_a_gather_does():
    words = ["contrastive", "--ranks", "2", "3", "--rows", "256", "--width", "64", "--block", "64"]
    out = succeed("tools.benchmark", *words, script="-m", timeout=500.0)
    found = {
        name: [float(first), float(second)]
        for name, first, second in re.findall(r"^\| ([\w, -]+) \| ([\d.]+) \| ([\d.]+) \|$", out, re.MULTILINE)
    }
    assert {"SigLIP, ring", "SigLIP, gather", "CLIP", "CLIP, share", "NT-Xent"} <= set(found)
    assert found["SigLIP, ring"][1] <= 1.15 * found["SigLIP, ring"][0]
    assert found["SigLIP, ring"][1] < 0.5 * found["CLIP"][1]
    assert all(after > 1.2 * before for name, (before, after) in found.items() if name in ("CLIP", "NT-Xent"))
