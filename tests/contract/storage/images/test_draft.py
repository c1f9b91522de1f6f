# SPDX-License-Identifier: Apache-2.0

"""An image gets its name when it is whole; a failed one leaves nothing."""

import uuid

import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.images import draft, purge
from nova_rbd_backend.storage.snapshots import make as snapshots

MIB = 1 << 20


def left(pool, name):
    """Return the images and the journal's drafts with names that begin so."""
    entries = [entry.draft for entry in journal.creations(pool, name)]
    return [*pool.directory.names(name), *entries]


def test_image_gets_its_name_at_the_end(pool, name):
    with draft.draft(pool, name) as begun:
        pool.create(begun.name, MIB)
        assert not pool.directory.exists(name)
        image_id = begun.image_id
    assert pool.directory.image_id(name) == image_id
    assert left(pool, name) == [name]


@pytest.mark.parametrize("created", [True, False])
def test_an_error_leaves_nothing(pool, name, created):
    def fail():
        with draft.draft(pool, name) as begun:
            if created:
                pool.create(begun.name, MIB)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert left(pool, name) == []
    purge.purge(pool)


def test_name_is_taken_meanwhile(pool, name):
    def make():
        with draft.draft(pool, name) as begun:
            pool.create(begun.name, MIB)
            pool.create(name, 2 * MIB)

    with pytest.raises(errors.ImageExists):
        make()
    assert left(pool, name) == [name]
    image_id = pool.directory.image_id(name)
    assert pool.headers.size_bytes(image_id) == 2 * MIB


@pytest.mark.parametrize("looked_up", [True, False])
def test_draft_is_removed_meanwhile(pool, name, looked_up):
    def make():
        with draft.draft(pool, name) as begun:
            pool.create(begun.name, MIB)
            assert not looked_up or begun.image_id
            draft.settle_attempts(pool, name)

    with pytest.raises(errors.TakenOver):
        make()
    assert left(pool, name) == []
    purge.purge(pool)


@pytest.mark.parametrize("published", [True, False])
def test_source_snap_stays_for_a_snapshot_that_is_published(
    pool, name, published
):
    """Until it is detached; a snapshot that is undone needs it no more."""
    pool.create(name, MIB)
    glance_id = str(uuid.uuid4())
    attempt = snapshots.begin(pool, pool, name, glance_id)
    snapshots.snap(attempt)
    if published:
        snapshots.publish(pool, attempt, {})
        # As if the process had died before it ended the entry.
        entry = attempt.creation
        assert pool.objects.omap_swap(
            journal.OBJECT, entry.key, None, entry.stored
        )
    draft.settle(pool, attempt.creation)
    assert not journal.creations(pool, attempt.creation.image)
    with pool.open(name) as disk:
        found = [snap.name for snap in disk.snaps()]
    assert found == ([attempt.source.snap] if published else [])
    snapshots.undo(pool, attempt)
    purge.purge(pool)
