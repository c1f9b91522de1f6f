# SPDX-License-Identifier: Apache-2.0

"""Precaching puts an image into the pool, and nothing on the host."""

import os

import pytest

from tests.nova.images import bases, cache, content, never, rbd


def precache(image_id):
    from nova_rbd_backend.virt.boot import precache as module

    return module.have(None, image_id)


@pytest.fixture
def glance(glance, monkeypatch):
    """Return a function that sets what Glance answers to precaching too."""
    from nova_rbd_backend.virt.boot import create_image
    from nova_rbd_backend.virt.boot import precache as module

    def answers(**facts):
        glance(**facts)
        monkeypatch.setattr(module, "IMAGE_API", create_image.IMAGE_API)

    return answers


@pytest.fixture
def fetch_to_raw(monkeypatch):
    from nova.virt import images

    fetched = []

    def fetch(context, image_id, path, trusted_certs=None):
        fetched.append(image_id)
        with open(path, "wb") as file:
            file.write(b"cached")

    monkeypatch.setattr(images, "fetch_to_raw", fetch)
    return fetched


def test_precache(pools, glance, instance, image_id, fetch_to_raw):
    glance(disk_format="qcow2")
    assert precache(image_id) is True
    assert precache(image_id) is False
    assert fetch_to_raw == [image_id]
    image = rbd(instance)
    cache(image, never, image_id=image_id)
    assert content(pools, image, 6)[0] == b"cached"


def test_precache_of_a_cloneable_image_copies_nothing(
    pools, glance, parent, image_id, fetch_to_raw
):
    glance(urls=(parent,))
    assert precache(image_id) is False
    assert fetch_to_raw == []
    assert bases(pools, image_id) == []


def test_next_start_removes_the_files_of_a_killed_compute(pools, nova_conf):
    from nova_rbd_backend.virt.boot import staging

    left = []
    for host in ("host1", "host10"):
        nova_conf(host=host)
        with staging.staged_file("nova-base_x") as staged:
            pass
        left.append(staged.path + ".part")
        with open(left[-1], "wb") as file:
            file.write(b"half")
    nova_conf(host="host1")
    staging.clear_staged()
    staging.clear_staged()
    assert [os.path.exists(path) for path in left] == [False, True]
