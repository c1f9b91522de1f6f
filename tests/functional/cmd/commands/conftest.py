# SPDX-License-Identifier: Apache-2.0

"""A base that the commands show."""

import uuid

import pytest

from nova_rbd_backend import metadata, names
from nova_rbd_backend.storage.bases import make as bases
from nova_rbd_backend.storage.images import discard, purge

MIB = 1 << 20


@pytest.fixture
def base(vms, tmp_path):
    """The name of a base of 1 MiB, made of a qcow2 image."""
    source = str(uuid.uuid4())
    name = names.base_image(source, "some content")
    raw = tmp_path / "raw"
    raw.write_bytes(b"base" * (MIB // 4))
    facts = metadata.describe_base(source, disk_format="qcow2")
    bases.finish(vms, bases.begin(vms, name), str(raw), facts)
    yield name
    discard.discard(vms, name)
    purge.purge(vms)
