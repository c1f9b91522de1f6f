# SPDX-License-Identifier: Apache-2.0

"""Open encrypted images as a guest's QEMU does, with librbd's own format."""

import base64
import contextlib
import random
from collections.abc import Iterator

import pytest
import rbd

from nova_rbd_backend.ceph.image import can_decrypt_clones

# 64 random bytes, and as text, as Nova makes one.
PASSPHRASE = base64.b64encode(random.Random(1).randbytes(64))

needs_encrypted_clones = pytest.mark.skipif(
    not can_decrypt_clones(),
    reason="this librbd has no encrypted clones; tools/matrix.sh has one",
)


@contextlib.contextmanager
def decrypted(
    ceph, name: str, passphrase: bytes = PASSPHRASE
) -> Iterator[rbd.Image]:
    """Show an image of pool vms as the guest sees it."""
    with (
        ceph.admin() as admin,
        admin.open_ioctx("vms") as ioctx,
        rbd.Image(ioctx, name) as image,
    ):
        image.encryption_load(
            rbd.RBD_ENCRYPTION_FORMAT_LUKS2, passphrase.decode()
        )
        yield image
