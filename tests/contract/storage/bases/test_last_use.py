# SPDX-License-Identifier: Apache-2.0

"""A base that a host uses does not age; leases of dead makers are removed."""

import time
import uuid

import pytest
import rbd

from nova_rbd_backend import metadata, names
from nova_rbd_backend.ceph import lease
from nova_rbd_backend.storage.bases import age
from nova_rbd_backend.storage.bases import make as bases
from nova_rbd_backend.storage.images import discard, purge
from tests.support.clients import lock_of_a_dead_client

MIB = 1 << 20


@pytest.fixture
def turn(monkeypatch):
    """Return a function that makes the next ageing this host's turn."""

    def now():
        monkeypatch.setattr(age, "_TURN", uuid.uuid4().hex)

    return now


@pytest.fixture
def old_base(pool, tmp_path):
    """A base that no disk has been made of for years."""
    name = names.base_image(str(uuid.uuid4()), "a hash")
    raw = tmp_path / "raw"
    raw.write_bytes(bytes(MIB))
    bases.finish(pool, bases.begin(pool, name), str(raw), {}, workers=1)
    image_id = pool.directory.image_id(name)
    pool.set_metadata(image_id, {metadata.LAST_USED: "1000"})
    yield name
    if pool.directory.image_id(name) is not None:
        discard.discard(pool, name)
    purge.purge(pool)


def test_base_that_a_host_caches_again_does_not_age(pool, old_base, turn):
    age.touch(pool, old_base)
    turn()
    assert old_base not in age.age(pool, 3600, 60).removed


def test_use_of_a_base_whose_lock_a_dead_client_has(ceph, pool, old_base):
    """librbd could not write to it."""
    image_id = pool.directory.image_id(old_base)
    with pool.open(old_base, read_only=False) as image:
        image._image.update_features(rbd.RBD_FEATURE_JOURNALING, True)
    with lock_of_a_dead_client(ceph, image_id) as client_id:
        age.touch(pool, old_base)
    found = pool.headers.metadata(image_id)[metadata.LAST_USED]
    assert time.time() - int(found) < 3600
    assert pool.holders.locks(image_id)[0].client_id == client_id


def test_base_that_no_host_uses_ages(pool, old_base, turn):
    turn()
    assert old_base in age.age(pool, 3600, 60).removed


def test_base_that_is_removed_while_a_host_caches_it_again(
    pool, old_base, monkeypatch
):
    directory = type(pool.directory)
    listed_id = directory.listed_id

    def remove_then(self, name):
        found = listed_id(self, name)
        with pool.open(name, read_only=False) as image:
            for snap in image.snaps():
                image.remove_snap(snap.name)
        pool.remove(name)
        return found

    monkeypatch.setattr(directory, "listed_id", remove_then)
    age.touch(pool, old_base)
    monkeypatch.undo()
    assert pool.directory.image_id(old_base) is None


def test_ageing_removes_the_leases_of_dead_makers(pool, old_base, turn):
    assert pool.objects.lease(lease.OBJECT, old_base, "dead", 1, "me")
    limit = time.monotonic() + 10
    while old_base in pool.objects.leases(lease.OBJECT):
        assert time.monotonic() < limit, "the lease was not removed"
        time.sleep(0.1)
        turn()
        age.age(pool, None, 1)
