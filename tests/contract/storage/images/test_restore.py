# SPDX-License-Identifier: Apache-2.0

"""A trashed disk gets its name back, unless another image is to have it."""

import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.disks import delete
from nova_rbd_backend.storage.images import purge, restore

MIB = 1 << 20


@pytest.fixture
def trashed(pool, instance, name):
    """A deleted disk of the instance."""
    pool.create(name, MIB)
    delete.delete_disks(pool, instance)
    (image,) = restore.find(pool, name)
    return image


def test_disk_is_not_restored_while_its_name_is_being_made(
    pool, instance, trashed
):
    with journal.sole_maker(pool, trashed.name):
        entry = journal.begin_creation(pool, trashed.name)
        for flow in (restore.check, restore.restore):
            with pytest.raises(errors.BeingCreated):
                flow(pool, trashed)
        assert restore.find(pool, trashed.name) == [trashed]
        assert not pool.directory.exists(trashed.name)
    # Nothing makes it any more, so that the next purge undoes the attempt.
    restore.restore(pool, trashed)
    assert pool.directory.image_id(trashed.name) == trashed.image_id
    assert journal.creations(pool, trashed.name) == [entry]
    purge.purge(pool)
    assert pool.directory.image_id(trashed.name) == trashed.image_id
