# SPDX-License-Identifier: Apache-2.0

"""Runs of nova-rbd convert that differ from the run before them."""

import json
import os

import pytest

from nova_rbd_backend.convert import record
from tests.functional.convert.local_instance import ASIDE, MIB

CLASS = """
[nova_rbd]
storage_classes = fast
[nova_rbd_class_fast]
pool = snapshots
"""
OTHER_POOL = "an earlier run moved its disks into pool vms"


@pytest.fixture
def converted(local):
    """An instance whose disk the first run has moved into pool vms."""
    local.path("disk").write_bytes(os.urandom(MIB))
    local.add("disk", "vda", "raw")
    local.define()
    before = local.domain.XMLDesc()
    with local.program.conf.open("a") as file:
        file.write(CLASS)
    local.program.json("convert", local.uuid)
    local.xml_before = before
    return local


def refused(instance, *words):
    return instance.program.refused("convert", instance.uuid, *words)


def interrupt(instance):
    """Leave what a run leaves that is killed just before its end."""
    path = instance.path(record.NAME)
    found = json.loads(path.read_text())
    assert found["state"] == record.Stage.CONVERTED
    path.write_text(json.dumps(found | {"state": record.Stage.SWITCHING}))


def test_other_class_neither_finishes_nor_goes_on(converted):
    interrupt(converted)
    assert OTHER_POOL in refused(converted, "--storage-class", "fast")
    assert not converted.path("disk").exists()
    assert converted.sources() == {"vda": f"vms/{converted.image('disk')}"}
    (row,) = converted.program.json("convert", converted.uuid)
    assert row["Result"] == "converted"
    said = refused(converted, "--finish", "--storage-class", "fast")
    assert OTHER_POOL in said
    assert converted.path(f"disk{ASIDE}").exists()


def test_old_disk_that_the_domain_uses_again_is_kept(converted):
    converted.connection.defineXML(converted.xml_before)
    assert "names a local disk" in refused(converted, "--finish")
    assert converted.path(f"disk{ASIDE}").exists()
