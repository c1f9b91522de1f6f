# SPDX-License-Identifier: Apache-2.0

"""The effect of the options of new disks, on a real Ceph."""

import random
import time
import uuid

import pytest
import rbd

from nova_rbd_backend import names
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.image_options import FEATURES, ImageOptions
from nova_rbd_backend.storage.disks import delete, provision, rollback
from nova_rbd_backend.storage.images import discard, purge
from nova_rbd_backend.storage.snapshots import detach
from nova_rbd_backend.storage.snapshots import make as snapshots
from tests.support.blank_disks import blank_disk
from tests.support.clients import connect
from tests.testbed.process import wait_for

pytestmark = pytest.mark.usefixtures("disks_deleted")
KIB, MIB = 1 << 10, 1 << 20
FINE = ImageOptions(
    object_size_bytes=MIB, stripe_unit_bytes=64 * KIB, stripe_count=5
)


@pytest.fixture
def name(instance):
    return str(names.DiskName(instance, "disk"))


def _seconds(disk, writes):
    began = time.monotonic()
    for number in range(writes):
        disk.write(b"x" * 4096, number * 64 * KIB)
    return time.monotonic() - began


def test_limit_holds_for_every_client_of_the_disk(vms, name):
    """60 writes at 20 a second, with a burst of 20, take at least 2 s."""
    limits = {
        "rbd_cache": "false",
        "rbd_qos_write_iops_limit": "20",
        "rbd_qos_write_iops_burst": "20",
    }
    slow = Pool(
        vms.cluster, "vms", options=ImageOptions(conf=tuple(limits.items()))
    )
    blank_disk(slow, name, 8 * MIB)
    with vms.open(name, read_only=False) as disk:
        limited = _seconds(disk, 60)
    with vms.open(name, read_only=False) as disk:
        disk.set_conf("rbd_qos_write_iops_limit", "0")
        disk.set_conf("rbd_qos_write_iops_burst", "0")
        free = _seconds(disk, 60)
    print(f"60 writes: limited {limited:.2f} s, free {free:.2f} s")
    assert 1.5 < limited < 20
    assert free < limited / 2


def test_limit_is_changed_while_the_disk_is_in_use(ceph, vms, name):
    """As ``rbd config image set`` does it for the disk of a running guest."""
    blank_disk(vms, name, 8 * MIB)
    other = Pool(connect(ceph, operation_timeout_seconds=59), "vms")
    with vms.open(name, read_only=False) as disk:
        with other.open(name, read_only=False) as seen_by_operator:
            seen_by_operator.set_conf("rbd_cache", "false")
            seen_by_operator.set_conf("rbd_qos_write_iops_limit", "20")
        wait_for("the limit takes effect", lambda: _seconds(disk, 40) > 1, 30)
        with other.open(name, read_only=False) as seen_by_operator:
            seen_by_operator.set_conf("rbd_qos_write_iops_limit", "0")
        wait_for("the limit is lifted", lambda: _seconds(disk, 40) < 1, 30)


@pytest.mark.parametrize(
    "options",
    [ImageOptions(), FINE, ImageOptions(conf=(("rbd_cache", "false"),))],
    ids=["none", "striped", "conf"],
)
def test_options_need_no_second_open_of_a_clone(
    vms, parent, name, options, monkeypatch
):
    """A boot opens the disk only once, to grow it."""
    opened = []

    class Counted(rbd.Image):
        def __init__(self, *args, **kwargs):
            opened.append(kwargs)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(rbd, "Image", Counted)
    pool = Pool(vms.cluster, "vms", options=options)

    provision.clone_disk(pool, name, parent, 16 * MIB, {"nova.x": "y"})

    assert len(opened) == 1


def test_life_of_a_disk_with_all_features(vms, parent, name, instance):
    pool = Pool(
        vms.cluster, "vms", options=ImageOptions(features=tuple(FEATURES))
    )
    provision.clone_disk(pool, name, parent, 16 * MIB, {"nova.x": "y"})
    with pool.open(name, read_only=False) as disk:
        assert "journaling" in disk.layout().features
        disk.write(b"data", 0)
        disk.create_snap("nova-resize")
        disk.write(b"more", 0)
    rollback.roll_back(pool, name, "nova-resize")
    with pool.open(name, read_only=False) as disk:
        assert disk.read(0, 4) == b"data"
        disk.remove_snap("nova-resize")
    assert delete.delete_disks(pool, instance).deleted == (name,)
    assert name in purge.purge(pool).purged


@pytest.mark.parametrize("data_pool", [None, "vms-data"])
def test_life_of_a_striped_disk(ceph, vms, name, data_pool, tmp_path):
    """Snapshot and rollback find the changed extents of a striped disk."""
    pool = Pool(
        vms.cluster,
        "vms",
        options=ImageOptions(**{**vars(FINE), "data_pool": data_pool}),
    )
    content = bytearray(random.Random(5).randbytes(9 * MIB))
    raw = tmp_path / "raw"
    raw.write_bytes(content)
    provision.import_disk(pool, name, str(raw), 24 * MIB)
    content += bytes(15 * MIB)
    with pool.open(name, read_only=False) as disk:
        disk.create_snap("nova-resize")
        disk.resize(32 * MIB)
        for offset in (100, 5 * MIB - 7, 20 * MIB, 31 * MIB):
            disk.write(b"changed" * 10_000, offset)

    rollback.roll_back(pool, name, "nova-resize")

    with pool.open(name, read_only=False) as disk:
        assert disk.size_bytes() == 24 * MIB
        assert disk.read(0, 24 * MIB) == content
        disk.remove_snap("nova-resize")
    where = Pool(connect(ceph), "snapshots")
    making = snapshots.begin(where, pool, name, str(uuid.uuid4()))
    snapshots.snap(making)
    snapshot = snapshots.publish(where, making, {})
    detach.detach(where, snapshot.detachment, 0)
    with where.open(snapshot.image, snap=snapshots.SNAP) as image:
        assert image.parent() is None
        assert image.read(0, 24 * MIB) == content
        extents = image.extents()
    discard.discard(where, snapshot.image)
    assert snapshot.image in purge.purge(where).purged
    covered = sum(length for _, length in extents)
    assert 9 * MIB <= covered < 16 * MIB
