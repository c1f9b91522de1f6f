# SPDX-License-Identifier: Apache-2.0

"""Images that we encrypt are encrypted images to librbd and to QEMU."""

import json
import subprocess

import pytest
import rbd

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import luks
from tests.support.encrypted import PASSPHRASE, decrypted

MIB = 1 << 20
DATA = b"secret" * 700


@pytest.fixture
def encrypted(pool, name):
    """The name of an encrypted image with 32 MiB of data, all zeros."""
    pool.create(name, 32 * MIB + luks.HEADER_BYTES)
    with pool.open(name, read_only=False) as image:
        assert luks.encrypt(image, PASSPHRASE) == luks.HEADER_BYTES
    return name


def test_librbd_opens_it(ceph, pool, encrypted):
    with decrypted(ceph, encrypted) as image:
        assert image.size() == 32 * MIB
        image.write(DATA, 5000)
        assert image.read(5000, len(DATA)) == DATA
    with pool.open(encrypted) as image:
        for offset, length in image.extents():
            assert b"secret" not in image.read(offset, length)


def test_wrong_passphrase(ceph, encrypted):
    with (
        pytest.raises(rbd.PermissionError),
        decrypted(ceph, encrypted, b"another"),
    ):
        pass


def test_two_headers_have_two_keys():
    headers = [luks.make_header(PASSPHRASE, 16 * MIB) for _ in range(2)]
    assert headers[0][4096:] != headers[1][4096:]
    assert not any(PASSPHRASE in header for header in headers)


def test_qemu_opens_it(ceph, encrypted, tmp_path):
    with decrypted(ceph, encrypted) as image:
        image.write(b"A" * 4096, 8192)
    key = tmp_path / "key"
    key.write_bytes(PASSPHRASE)
    options = {
        "driver": "rbd",
        "pool": "vms",
        "image": encrypted,
        "conf": str(ceph.conf),
        "user": "nova",
        "encrypt": {"format": "luks2", "key-secret": "it"},
    }
    command = ["qemu-io", "--object", f"secret,id=it,file={key}"]
    command += ["-c", "read -P 0x41 8192 4096", "-c", "length"]
    command += [f"json:{json.dumps(options)}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "32 MiB" in done.stdout


def test_without_cryptsetup(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.ConversionError, match="cryptsetup") as caught:
        luks.make_header(PASSPHRASE, 16 * MIB)
    assert PASSPHRASE.decode() not in str(caught.value)


def test_not_a_header():
    with pytest.raises(errors.ConversionError, match="LUKS2 header"):
        luks.for_clone(b"RBDL\xba\xbe" + bytes(20000))
