# SPDX-License-Identifier: Apache-2.0

"""Rbd as Nova's driver calls it, on a real Ceph.

The tests answer in Glance's place, and make the file that Nova fetches.
"""

import os
import subprocess
import uuid

import pytest

from tests.nova.images import (
    GIB,
    MIB,
    base_file,
    cache,
    content,
    fetcher,
    generated,
    never,
    rbd,
)
from tests.testbed.process import wait_for


@pytest.mark.quick
@pytest.mark.parametrize("disk_format", ["raw", "iso"])
def test_clone(pools, glance, instance, parent, disk_format):
    other = f"rbd://{uuid.uuid4()}/images/x/snap"
    glance(disk_format=disk_format, urls=("file:///x", other, parent))
    image = rbd(instance)
    cache(image, never)
    found, size, origin = content(pools, image, 11)
    assert (found, size) == (b"from glance", GIB)
    assert origin.image == parent.split("/")[-2]
    cache(image, never)  # once more, as a hard reboot does


def test_clone_ignores_a_fetched_file(pools, glance, instance, parent):
    glance(urls=(parent,))
    with open(base_file(), "wb") as file:
        file.write(b"stale" * 1000)
    image = rbd(instance)
    cache(image, never)
    assert content(pools, image, 11)[0] == b"from glance"


def test_clone_of_a_too_big_image_changes_nothing(
    pools, glance, instance, parent
):
    from nova import exception

    glance(urls=(parent,))
    image = rbd(instance)
    with pytest.raises(exception.FlavorDiskSmallerThanImage):
        cache(image, never, size=4 * MIB)
    assert pools.vms.directory.names(instance.uuid) == []


def test_never_download_says_why(pools, glance, instance):
    from nova import exception

    pools.conf(group="workarounds", never_download_image_if_on_rbd=True)
    glance(disk_format="qcow2")
    with pytest.raises(exception.ImageUnacceptable):
        cache(rbd(instance), never)


def test_image_gone_from_glance_is_not_taken_from_novas_cache(
    pools, glance, instance
):
    from nova import exception

    glance(gone=True)
    with open(base_file(), "wb") as file:
        file.write(b"fetched before")
    with pytest.raises(exception.ImageNotFound):
        cache(rbd(instance), never)
    assert pools.vms.directory.names(instance.uuid) == []


def test_generated_disk_leaves_no_file(pools, instance):
    image = rbd(instance, "disk.eph0")
    (staging,) = generated(image, 64 * MIB, ephemeral_size=1)
    assert not os.path.exists(staging)
    assert content(pools, image, 6)[:2] == (b"header", 64 * MIB)
    assert generated(image, 64 * MIB, ephemeral_size=1) == []


def test_bigger_swap_gets_a_new_header(pools, instance):
    image = rbd(instance, "disk.swap")
    generated(image, 4 * MIB, swap_mb=4)
    generated(image, 8 * MIB, swap_mb=8)
    text = f"header for {8 * MIB}".encode()
    assert content(pools, image, len(text))[:2] == (text, 8 * MIB)


def test_smaller_swap_keeps_the_disk(pools, instance):
    image = rbd(instance, "disk.swap")
    generated(image, 8 * MIB, swap_mb=8)
    assert generated(image, 4 * MIB, swap_mb=4) == []
    assert image.get_disk_size("") == 8 * MIB


def test_resize_snap_is_of_this_resize(pools, instance):
    image = rbd(instance)
    pools.vms.create(image.disk.image, MIB)
    for text in (b"first", b"later"):
        with pools.vms.open(image.disk.image, read_only=False) as disk:
            disk.write(text, 0)
        image.create_snap("nova-resize")
    with pools.vms.open(image.disk.image, read_only=False) as disk:
        disk.write(b"resized", 0)
    image.rollback_to_snap("nova-resize")
    image.remove_snap("nova-resize")
    image.remove_snap("nova-resize")
    assert content(pools, image, 5)[0] == b"later"


def test_config_drive_replaces_the_old_one(pools, instance, tmp_path):
    image = rbd(instance, "disk.config")
    drive = tmp_path / "disk.config"
    for text in (b"first", b"second"):
        drive.write_bytes(text)
        image.import_file(instance, str(drive), "disk.config")
        assert content(pools, image, len(text)) == (text, len(text), None)


@pytest.mark.parametrize("pool", ["images", "device_health_metrics"])
def test_parent_that_cannot_be_read_is_fetched(pools, glance, instance, pool):
    """The parent does not exist, or Nova's user has no rights to its pool."""
    glance(urls=(f"rbd://{pools.vms.cluster.fsid()}/{pool}/x/snap",))
    fetched = []
    cache(rbd(instance), fetcher(b"fetched", fetched))
    assert len(fetched) == 1


def test_disk_of_a_failed_build_is_undone_in_the_background(
    pools, glance, instance, parent, monkeypatch
):
    """Nova may delete the instance without asking this host again."""
    from nova import exception

    from nova_rbd_backend import errors
    from nova_rbd_backend.ceph.pool import Pool
    from nova_rbd_backend.storage import journal
    from nova_rbd_backend.storage.images import draft

    def no_answer(*_args, **_kwargs):
        raise errors.OperationTimedOut("no answer", operation="make")

    glance(urls=(parent,))
    with monkeypatch.context() as patch:
        patch.setattr(Pool, "set_metadata", no_answer)
        patch.setattr(draft, "settle", no_answer)
        with pytest.raises(exception.StorageError, match="no answer"):
            cache(rbd(instance), never)

    wait_for(
        "the draft is gone",
        lambda: pools.vms.directory.names(instance.uuid) == [],
        30,
    )
    assert journal.creations(pools.vms, instance.uuid) == []


def test_disk_is_copied_into_a_file(pools, instance, tmp_path):
    """Nova's Image has the method for snapshots that are not direct."""
    image, target = rbd(instance), tmp_path / "disk.qcow2"
    pools.vms.create(image.disk.image, 8 * MIB)
    with pools.vms.open(image.disk.image, read_only=False) as disk:
        disk.write(b"content", 5 * MIB)

    image.snapshot_extract(str(target), "qcow2")

    raw = tmp_path / "disk.raw"
    command = ("qemu-img", "convert", "-f", "qcow2", "-O", "raw", target, raw)
    subprocess.run(command, check=True, timeout=60)
    assert raw.read_bytes() == (bytes(5 * MIB) + b"content").ljust(
        8 * MIB, b"\0"
    )
