# SPDX-License-Identifier: Apache-2.0

"""nova-rbd convert into a storage class that has its own pool."""

import os

import pytest

from nova_rbd_backend import metadata
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import registry
from tests.functional.convert.local_instance import MIB
from tests.support.clients import connect

CLASS = """
[nova_rbd]
storage_classes = fast
[nova_rbd_class_fast]
pool = snapshots
object_size = 1048576
"""


@pytest.fixture
def fast(ceph, vms):
    """The pool of the class; it is not in the registry of pools yet."""
    yield Pool(connect(ceph), "snapshots")
    for name in registry.names(vms):
        registry.remove(vms, name)


@pytest.fixture
def content():
    return os.urandom(MIB) + bytes(3 * MIB)


@pytest.fixture
def instance(local, content):
    """An instance that is shut off, with one small raw disk."""
    local.path("disk").write_bytes(content)
    local.add("disk", "vda", "raw")
    local.define()
    with local.program.conf.open("a") as file:
        file.write(CLASS)
    return local


def convert(instance, *words):
    return instance.program.json("convert", instance.uuid, *words)


def refused(instance, *words):
    return instance.program.refused("convert", instance.uuid, *words)


@pytest.mark.parametrize("live", [[], ["--live"]])
def test_class_on_the_command_line(instance, vms, fast, content, live):
    """The disk gets the class's pool, options and name.

    The pool is registered, so that every host looks for disks in it.
    """
    if live:
        instance.start()
    convert(instance, *live, "--storage-class", "fast", "--dry-run")
    assert registry.names(vms) == ()
    (row,) = convert(instance, *live, "--storage-class", "fast")
    image = instance.image("disk")
    assert row["In Ceph"] == f"snapshots/{image}"
    assert instance.sources() == {"vda": f"snapshots/{image}"}
    assert vms.directory.names(instance.uuid) == []
    assert registry.names(vms) == ("snapshots",)
    with fast.open(image) as disk:
        assert disk.read(0, 4 * MIB) == content
        assert disk.layout().object_bytes == MIB
        assert disk.metadata()[metadata.CLASS] == "fast"
    if live:
        instance.stop()

    # Both --undo runs find the pool in the record of the first run.
    assert "pool snapshots" in refused(
        instance, "--undo", "--storage-class", "default"
    )
    (row,) = convert(instance, "--undo")
    assert (row["In Ceph"], row["Result"]) == (f"snapshots/{image}", "undone")
    assert fast.directory.names(instance.uuid) == []
    assert instance.path("disk").read_bytes() == content
    assert instance.sources() == {"vda": str(instance.path("disk"))}


def test_default_class_of_nova_conf(instance, fast):
    """Without --storage-class, as for a flavor that asks for no class."""
    with instance.program.conf.open("a") as file:
        file.write("[nova_rbd]\ndefault_storage_class = fast\n")
    (row,) = convert(instance)
    assert row["In Ceph"] == f"snapshots/{instance.image('disk')}"
    (row,) = convert(instance, "--finish")
    assert row["Result"] == "finished"


def test_unknown_class(instance, vms):
    said = refused(instance, "--storage-class", "slow")
    assert "--storage-class slow: nova.conf has no such class" in said
    assert "it has default, fast" in said
    assert vms.directory.names(instance.uuid) == []
