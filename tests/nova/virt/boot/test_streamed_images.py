# SPDX-License-Identifier: Apache-2.0

"""A raw image is written into the pool while Nova fetches and checks it."""

import os
import subprocess

import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import transfer
from nova_rbd_backend.ceph.incoming import PIECE_BYTES
from tests.nova.images import GIB, MIB, another, bases, content, rbd
from tests.nova.virt.boot.conftest import DATA, DISK_BYTES
from tests.nova.virt.boot.test_bases import staged

pytestmark = pytest.mark.usefixtures("inspected")


@pytest.fixture
def streams(monkeypatch):
    """The sizes of the images that were written as they came."""
    sizes, write = [], transfer.import_incoming

    def note(image, incoming, *rest):
        sizes.append(incoming.size_bytes)
        return write(image, incoming, *rest)

    monkeypatch.setattr(transfer, "import_incoming", note)
    return sizes


@pytest.fixture
def local_bytes(monkeypatch):
    """What the local files take when Nova looks at them."""
    from nova.virt import images

    found, info = [], images.qemu_img_info

    def look(path, format=None):
        found.append(sum(os.stat(name).st_blocks for name in staged()) * 512)
        return info(path, format)

    monkeypatch.setattr(images, "qemu_img_info", look)
    return found


def test_streamed(
    pools, uploaded, boot, instance, image_id, raw, streams, local_bytes
):
    uploaded(raw, "raw")
    image = rbd(instance)
    boot(image)
    found, size, origin = content(pools, image, DISK_BYTES)
    assert (found, size) == (raw.read_bytes(), GIB)
    assert [origin.image] == bases(pools, image_id)
    with pools.vms.open(origin.image) as base:
        assert base.size_bytes() == DISK_BYTES
        # Zeros are left out.
        assert sum(length for _, length in base.extents()) <= 16 * MIB
    assert streams == [DISK_BYTES]
    assert max(local_bytes) <= PIECE_BYTES
    assert staged() == []


def _short(raw):
    os.truncate(raw, DISK_BYTES - 1)


def _long(raw):
    os.truncate(raw, DISK_BYTES + 1)


def _qcow2(raw):
    os.unlink(raw)
    command = ["qemu-img", "create", "-f", "qcow2", raw, "1G"]
    subprocess.run(command, check=True, timeout=60)
    os.truncate(raw, DISK_BYTES)


@pytest.mark.parametrize(
    ("make", "fault", "reason"),
    [
        (_short, None, f"{DISK_BYTES - 1} bytes have come"),
        (_long, None, f"{DISK_BYTES + 1} bytes have come"),
        (_qcow2, None, "not in a supported format"),
        (None, OSError("Corrupt image download"), "Corrupt image download"),
    ],
)
def test_nothing_is_left_of_an_image_that_is_refused(
    pools, uploaded, boot, image_id, raw, streams, make, fault, reason
):
    if make is not None:
        make(raw)
    uploaded(raw, "raw", fault, size=DISK_BYTES)
    with pytest.raises(Exception, match=reason) as caught:
        boot(rbd(another()))
    assert not isinstance(caught.value, errors.Error)
    assert streams == [DISK_BYTES]
    assert bases(pools, image_id) == []
    assert staged() == []


def test_signature_is_verified_before_the_base_is_published(
    pools, uploaded, boot, image_id, raw, streams, monkeypatch
):
    from cryptography.exceptions import InvalidSignature
    from nova.image.glance import GlanceImageServiceV2

    class Verifier:
        seen_bytes = 0

        def update(self, chunk):
            self.seen_bytes += len(chunk)

        def verify(self):
            raise InvalidSignature

    verifier = Verifier()
    monkeypatch.setattr(
        GlanceImageServiceV2, "_get_verifier", lambda *_args: verifier
    )
    uploaded(raw, "raw")
    with pytest.raises(InvalidSignature):
        boot(rbd(another()))
    assert verifier.seen_bytes == DISK_BYTES
    assert streams == [DISK_BYTES]
    assert bases(pools, image_id) == []


def test_too_big_for_its_flavor_is_not_fetched(
    pools, uploaded, boot, raw, streams
):
    from nova import exception

    uploaded(raw, "raw")
    with pytest.raises(exception.FlavorDiskSmallerThanImage):
        boot(rbd(another()), size=8 * MIB)
    assert streams == []


def _not_inspected(conf):
    conf(group="workarounds", disable_deep_image_inspection=True)


def _copied_from_ceph(conf):
    conf(group="glance", enable_rbd_download=True)


@pytest.mark.parametrize("option", [_not_inspected, _copied_from_ceph])
def test_fetched_into_a_file_first(
    pools, uploaded, boot, instance, raw, streams, option, nova_conf
):
    option(nova_conf)
    uploaded(raw, "raw")
    image = rbd(instance)
    boot(image)
    assert content(pools, image, DISK_BYTES)[0] == raw.read_bytes()
    assert streams == []


def test_fault_of_ceph_ends_the_download(
    pools, uploaded, boot, image_id, raw, monkeypatch
):
    from nova import exception

    from nova_rbd_backend.ceph.image import Image

    def refuse(self, data, offset):
        raise errors.NoSpace("it is full", pool="vms", image=self.name)

    monkeypatch.setattr(Image, "write", refuse)
    raw.write_bytes(DATA * 16)
    uploaded(raw, "raw")
    with pytest.raises(exception.StorageError, match="it is full"):
        boot(rbd(another()))
    assert bases(pools, image_id) == []
    assert staged() == []


def test_other_host_takes_over_meanwhile(
    pools, uploaded, boot, instance, raw, monkeypatch
):
    """As when this host was taken for dead; the attempt is repeated."""
    from nova_rbd_backend.storage.bases import make

    lost, begin = [], make.begin

    def begins(pool, name):
        attempt = begin(pool, name)
        if not lost:
            lost.append(attempt)
            attempt.right.lost = True
        return attempt

    monkeypatch.setattr(make, "begin", begins)
    uploaded(raw, "raw")
    image = rbd(instance)
    boot(image)
    assert len(lost) == 1
    assert content(pools, image, DISK_BYTES)[0] == raw.read_bytes()
