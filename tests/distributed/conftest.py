"""What tests of interrupted runs share: the shards that the first of them makes, and the run that nobody disturbed."""

from functools import cache

import pytest

from tests.commands import succeed


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tmp_path_factory.mktemp("shards") / "debug"


@pytest.fixture(scope="module")
def undisturbed(request, shards, tmp_path_factory):
    """The folder of a run of the module's `command` that nobody disturbed, on so many ranks."""

    @cache
    def run(world_size):
        folder = tmp_path_factory.mktemp("undisturbed")
        succeed(*request.module.command(folder, shards, world_size))
        return folder

    return run
