# SPDX-License-Identifier: Apache-2.0

"""Encrypted disks share the plain data of their parents, and nothing else."""

import uuid

import pytest
import rbd

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph import luks
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.image_options import ImageOptions
from nova_rbd_backend.storage.bases import make as bases
from nova_rbd_backend.storage.disks import provision
from nova_rbd_backend.storage.snapshots import make as snapshots
from tests.support.encrypted import (
    PASSPHRASE,
    decrypted,
    needs_encrypted_clones,
)

pytestmark = needs_encrypted_clones
MIB = 1 << 20
SIZE = 64 * MIB


@pytest.fixture
def base(pool, parent):
    """A base with room for headers, whose parent ends with data."""
    return make_base(pool, parent)


def make_base(pool, parent):
    name = names.base_image(parent.image, f"luks2 {pool.options}")
    attempt = bases.begin(pool, name)
    bases.finish(pool, attempt, parent, {})
    return bases.snap(pool, name)


@pytest.fixture
def parent(parent, glance_pool):
    """Its last bytes are data, too."""
    with glance_pool.open(parent.image, read_only=False) as image:
        image.write(b"the end", 8 * MIB - 7)
        image.create_snap("full")
        image.protect_snap("full")
    return names.SnapPath("images", "", parent.image, "full")


def disk(pool, name, base, size=SIZE):
    return provision.clone_disk(pool, name, base, size, passphrase=PASSPHRASE)


def test_shows_the_parents_data(ceph, pool, name, base, parent):
    made = disk(pool, name, base)
    assert (made.size_bytes, made.grown) == (SIZE, True)
    assert provision.guest_bytes(pool, name) == SIZE
    with decrypted(ceph, name) as image:
        assert image.size() == SIZE
        assert image.read(4096, 4) == b"base"
        assert image.read(8 * MIB - 7, 14) == b"the end" + bytes(7)
        image.write(b"secret", 4098)
        assert image.read(4096, 8) == b"basecret"
    with pool.open(name) as image:
        for offset, length in image.extents():
            assert b"secret" not in image.read(offset, length)


def test_copies_nothing(ceph, pool, name, base):
    disk(pool, name, base)
    with pool.open(name) as image:
        assert image.used_bytes() <= luks.HEADER_BYTES
        # The parent's bytes are hidden behind the header.
        assert not any(image.read(MIB, luks.HEADER_BYTES - MIB))


def test_size_of_the_parent(ceph, pool, name, base):
    made = disk(pool, name, base, None)
    assert made.size_bytes == 8 * MIB
    with decrypted(ceph, name) as image:
        assert image.size() == 8 * MIB


def test_grown(ceph, pool, name, base):
    disk(pool, name, base)
    assert provision.grow(pool, name, 2 * SIZE)
    assert not provision.grow(pool, name, 2 * SIZE)
    with decrypted(ceph, name) as image:
        assert image.size() == 2 * SIZE
        assert image.read(4096, 4) == b"base"


def test_each_disk_has_a_key(ceph, pool, name, base):
    other = b"another passphrase"
    disk(pool, name, base)
    provision.clone_disk(pool, f"{name}.b", base, SIZE, passphrase=other)
    with decrypted(ceph, f"{name}.b", other) as image:
        assert image.read(4096, 4) == b"base"
    with (
        pytest.raises(rbd.PermissionError),
        decrypted(ceph, f"{name}.b"),
    ):
        pass


def test_exists_already(ceph, pool, name, base):
    disk(pool, name, base)
    assert not disk(pool, name, base).created
    with decrypted(ceph, name) as image:
        assert image.read(4096, 4) == b"base"


def test_plain_disk_is_never_taken(pool, name, base):
    provision.clone_disk(pool, name, base, SIZE)
    with pytest.raises(errors.NotEncrypted, match=name):
        disk(pool, name, base)


def test_parent_without_room(pool, name, parent):
    with pytest.raises(errors.NotSupported, match="needs 16777216"):
        disk(pool, name, parent)
    assert not provision.is_whole(pool, name)


def test_striped(ceph, pool, name, parent):
    """The data begins at a whole stripe period, here of 12 MiB."""
    options = ImageOptions(stripe_unit_bytes=MIB, stripe_count=3)
    striped = Pool(pool.cluster, pool.name, options=options)
    disk(striped, name, make_base(striped, parent))
    with pool.open(name) as image:
        assert image.size_bytes() == SIZE + 24 * MIB
    with decrypted(ceph, name) as image:
        assert image.size() == SIZE
        assert image.read(4096, 4) == b"base"
        assert image.read(8 * MIB - 7, 14) == b"the end" + bytes(7)


def test_clone_of_its_snap(ceph, pool, name, base):
    """It opens with the disk's passphrase."""
    disk(pool, name, base)
    with decrypted(ceph, name) as image:
        image.write(b"secret", 0)
    with pool.open(name, read_only=False) as image:
        image.create_snap("it")
        image.protect_snap("it")
    pool.clone(pool, name, "it", f"{name}.clone")
    assert provision.guest_bytes(pool, f"{name}.clone") == SIZE
    with decrypted(ceph, f"{name}.clone") as image:
        assert image.read(0, 6) == b"secret"
        assert image.read(4096, 4) == b"base"


def test_flattened_with_the_passphrase(ceph, pool, name, base):
    disk(pool, name, base)
    with pool.open(name, read_only=False) as image:
        with pytest.raises(errors.NotSupported, match="is encrypted"):
            image.flatten()
        image.decrypt(PASSPHRASE)
        image.flatten()
        assert image.parent() is None
    with decrypted(ceph, name) as image:
        assert image.read(4096, 4) == b"base"
        assert image.read(8 * MIB - 7, 14) == b"the end" + bytes(7)
    with pool.open(name) as image:
        for offset, length in image.extents():
            assert b"base" not in image.read(offset, length)


def test_made_flat(ceph, pool, name, base):
    provision.clone_disk(
        pool, name, base, SIZE, flatten=True, passphrase=PASSPHRASE
    )
    with pool.open(name) as image:
        assert image.parent() is None
    with decrypted(ceph, name) as image:
        assert image.size() == SIZE
        assert image.read(4096, 4) == b"base"


def test_no_snapshot(pool, glance_pool, name, base):
    disk(pool, name, base)
    glance_id = str(uuid.uuid4())
    with pytest.raises(errors.NotSupported, match="is encrypted"):
        snapshots.begin(glance_pool, pool, name, glance_id)
    with pool.open(name) as image:
        assert not image.snaps()
