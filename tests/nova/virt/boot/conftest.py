# SPDX-License-Identifier: Apache-2.0

"""Images that Nova's own code fetches and checks; only Glance is not there."""

import random

import pytest

from tests.nova.images import MIB, cache

DISK_BYTES = 24 * MIB
DATA = random.Random(16).randbytes(3 * MIB)


@pytest.fixture
def raw(tmp_path):
    """A raw file with data at its begin and over the border of an object."""
    path = tmp_path / "raw"
    with path.open("wb") as file:
        file.write(b"boot sector")
        file.seek(7 * MIB)
        file.write(DATA)
        file.truncate(DISK_BYTES)
    return path


class _Chunks:
    """What Glance's client returns as the data of an image."""

    wrapped = True

    def __init__(self, path, fault):
        self._path, self._fault = path, fault

    def __iter__(self):
        with self._path.open("rb") as file:
            while chunk := file.read(64 << 10):
                yield chunk
        if self._fault is not None:
            raise self._fault


class _Client:
    """Glance's client."""

    def __init__(self, chunks):
        self._chunks = chunks

    def call(self, context, version, method, **_):
        assert method == "data"
        return self._chunks


@pytest.fixture
def uploaded(glance, monkeypatch):
    """Return a function that uploads a file.

    :param fault: raised after the last byte, as when the hash is wrong
    :param facts: what Glance says of the image
    """
    from nova.image import glance as nova_glance
    from nova.virt import images

    from nova_rbd_backend.virt.boot import create_image

    def upload(path, disk_format, fault=None, **facts):
        facts.setdefault("size", path.stat().st_size)
        glance(disk_format=disk_format, os_hash_value=path.name, **facts)
        client = _Client(_Chunks(path, fault))
        service = nova_glance.GlanceImageServiceV2(client)
        service._download_handlers = {}
        api = nova_glance.API()
        api.get = create_image.IMAGE_API.get
        api._get_session_and_image_id = lambda _context, image_id: (
            service,
            image_id,
        )
        monkeypatch.setattr(images, "IMAGE_API", api)

    return upload


@pytest.fixture
def inspected():
    """Skip a test of what Nova 26 does not do, unless it was added to it."""
    from nova.virt import images

    if not hasattr(images, "do_image_deep_inspection"):
        pytest.skip("this Nova does not look into images by itself")


@pytest.fixture
def novas_fetch():
    """Nova's function to fetch an image, as the driver hands it on."""
    from nova.virt.libvirt import utils

    return utils.fetch_image


@pytest.fixture
def boot(novas_fetch, image_id):
    """Return a function that makes a disk of the image, as a boot does."""

    def boot(image, **options):
        cache(image, novas_fetch, image_id=image_id, **options)

    return boot
