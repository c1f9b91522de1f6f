# SPDX-License-Identifier: Apache-2.0

"""Copied bytes are stored when a copy returns, whatever librbd caches."""

import pytest

from nova_rbd_backend.ceph import transfer

MIB = 1 << 20


@pytest.fixture
def cached(vms, instance, disks_deleted):
    """A disk whose writes librbd keeps until they are flushed."""
    name = f"{instance}_disk"
    vms.create(name, MIB)
    with vms.open(name, read_only=False) as disk:
        disk.set_conf("rbd_cache_policy", "writeback")
        disk.set_conf("rbd_cache_writethrough_until_flush", "false")
        disk.set_conf("rbd_cache_max_dirty_age", "60")
    return name


def stored(vms, name):
    """Return the first bytes as another client reads them."""
    with vms.open(name) as other:
        return other.read(0, 5)


def test_import(vms, cached, tmp_path):
    path = tmp_path / "raw"
    path.write_bytes(b"image".ljust(64 << 10))
    with vms.open(cached, read_only=False) as disk:
        transfer.import_file(disk, str(path))
        assert stored(vms, cached) == b"image"


def test_copy(vms, instance, cached):
    source = f"{instance}_disk.eph0"
    vms.create(source, MIB)
    with vms.open(source, read_only=False) as disk:
        disk.write(b"older", 0)
    with (
        vms.open(source) as before,
        vms.open(cached, read_only=False) as disk,
    ):
        transfer.copy(before, disk, [(0, MIB)])
        assert stored(vms, cached) == b"older"
