# SPDX-License-Identifier: Apache-2.0

"""A parent may be removed while its striping is looked up."""

import uuid

import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.image_options import ImageOptions
from tests.support.clients import connect

MIB = 1 << 20
FINE = ImageOptions(object_size_bytes=MIB)


def test_error_names_the_parent(ceph, vms, instance, monkeypatch):
    striped = Pool(vms.cluster, "vms", options=FINE)
    parents = Pool(connect(ceph, "glance"), "images")
    parent = str(uuid.uuid4())
    parents.create(parent, MIB)
    look_up = parents.directory.image_id

    def id_of_what_is_removed_then(image):
        image_id = look_up(image)
        parents.remove(image)
        return image_id

    monkeypatch.setattr(
        parents.directory, "image_id", id_of_what_is_removed_then
    )
    # The maker of bases tells by the name that its base is gone.
    with pytest.raises(errors.ImageNotFound) as caught:
        striped.clone(parents, parent, "snap", f"{instance}_disk")
    assert (caught.value.pool, caught.value.image) == ("images", parent)
