# SPDX-License-Identifier: Apache-2.0

"""Bases and clients that make clones of the old format (v1)."""

import uuid

import rados
import rbd

from nova_rbd_backend import names
from nova_rbd_backend.storage.bases import make as bases
from nova_rbd_backend.storage.images import discard, purge

MIB = 1 << 20


def test_base_can_be_cloned_in_the_old_format(ceph, vms, tmp_path):
    """It needs a protected snap; after it, the base can be removed."""
    path = tmp_path / "raw"
    path.write_bytes(b"image".ljust(MIB))
    base = names.base_image(str(uuid.uuid4()), "")
    bases.finish(vms, bases.begin(vms, base), str(path), {})
    old_client = rados.Rados(
        conffile=str(ceph.conf),
        rados_id="nova",
        conf={"rbd_default_clone_format": "1"},
    )
    with old_client, old_client.open_ioctx("vms") as ioctx:
        rbd.RBD().clone(ioctx, base, bases.SNAP, ioctx, f"{base}-clone")
        with rbd.Image(ioctx, f"{base}-clone", read_only=True) as clone:
            assert clone.read(0, 5) == b"image"
        rbd.RBD().remove(ioctx, f"{base}-clone")
    discard.discard(vms, base)
    assert base in purge.purge(vms).purged
