# SPDX-License-Identifier: Apache-2.0

"""A raw image in another store, which Glance can copy to this cluster."""

import uuid

import pytest

from tests.nova.images import GIB, Glance, cache, content, fetcher, never, rbd


class CopyingGlance(Glance):
    """Has the image in this cluster once it was asked to copy it there."""

    def __init__(self, url, works=True, **known):
        super().__init__(urls=("file:///elsewhere",), **known)
        self.url, self.works, self.asked = url, works, []

    def copy_image_to_store(self, context, image_id, store):
        self.asked.append(store)
        if self.works:
            self.urls = (*self.urls, self.url)

    def get(self, context, image_id, include_locations=False, **_):
        found = super().get(context, image_id, include_locations)
        return {**found, "stores": ["ceph"] if self.asked else ["file"]}


@pytest.fixture
def copying(pools, monkeypatch):
    def answers(url, works=True, store="ceph", **known):
        from nova.virt.libvirt import imagebackend as nova_imagebackend

        from nova_rbd_backend.virt.boot import create_image, precache

        pools.conf(
            group="libvirt",
            images_rbd_glance_store_name=store,
            images_rbd_glance_copy_poll_interval=1,
        )
        found = CopyingGlance(url, works, **known)
        for module in (create_image, precache, nova_imagebackend):
            monkeypatch.setattr(module, "IMAGE_API", found)
        return found

    return answers


def test_image_elsewhere_is_copied_by_glance_and_cloned(
    pools,
    copying,
    instance,
    parent,
):
    found = copying(parent)
    image = rbd(instance)
    cache(image, never)
    assert found.asked == ["ceph"]
    assert content(pools, image, 11)[:2] == (b"from glance", GIB)


def test_image_that_is_too_big_is_not_copied(
    pools,
    copying,
    instance,
    parent,
):
    from nova import exception

    found = copying(parent, size=2 * GIB)
    with pytest.raises(exception.FlavorDiskSmallerThanImage):
        cache(rbd(instance), never)
    assert found.asked == []


def test_copy_that_changed_nothing_is_not_asked_for_again(
    pools,
    copying,
    instance,
    parent,
):
    found, fetched = copying(parent, works=False), []
    image_id = str(uuid.uuid4())
    cache(rbd(instance), fetcher(b"fetched", fetched), image_id=image_id)
    assert (found.asked, len(fetched)) == (["ceph"], 1)
    # The next boot does not ask either, since it has the base.
    image = rbd(instance, "disk.rescue")
    cache(image, never, image_id=image_id)
    assert content(pools, image, 7)[0] == b"fetched"
    assert found.asked == ["ceph"]


def test_precached_image_elsewhere_is_copied_by_glance(
    pools,
    copying,
    instance,
    parent,
):
    from nova_rbd_backend.virt.boot import precache

    found = copying(parent)
    image_id = str(uuid.uuid4())
    assert precache.have(None, image_id)
    assert found.asked == ["ceph"]
    assert not precache.have(None, image_id)
    image = rbd(instance)
    cache(image, never, image_id=image_id)
    assert found.asked == ["ceph"]
    assert content(pools, image, 11)[:2] == (b"from glance", GIB)


def test_without_a_store_glance_is_not_asked_to_copy(
    pools,
    copying,
    instance,
    parent,
):
    found, fetched = copying(parent, store=""), []
    cache(rbd(instance), fetcher(b"fetched", fetched))
    assert (found.asked, len(fetched)) == ([], 1)
