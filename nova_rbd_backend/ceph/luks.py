# SPDX-License-Identifier: Apache-2.0

"""Encrypt an empty image or a clone, as librbd's LUKS2 encryption reads it.

librbd can format an image itself, but derives its key from the passphrase in
seconds of CPU time and 1 GiB of memory, for each format and each start of a
guest. That protects a passphrase which a person can remember. Ours are 64
random bytes, so this module has cryptsetup make the header with the fewest
rounds that LUKS allows, and puts it where librbd would.

In a clone, librbd (18 and later) marks its header by another magic: the data
beside it may be the parent's, which is not encrypted (luks/Magic.cc, 18.2).
"""

import os
import subprocess

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.image import Image

#: What LUKS2 keeps before the data. librbd wants the data to begin at a
#: multiple of the stripe period: one object, unless the image is striped.
HEADER_BYTES = 16 << 20
_CRYPTSETUP_SECONDS = 60
# As librbd makes it (luks/FormatRequest.cc, 18.2). librbd reads no other
# cipher and no other mode.
_LIKE_LIBRBD = (
    *("--type", "luks2", "--cipher", "aes-xts-plain64", "--key-size", "512"),
    *("--hash", "sha256", "--sector-size", "4096"),
)
# Room for the passphrase and another one; cryptsetup writes into all of it.
_KEYS = ("--luks2-keyslots-size", "512k")
# The fewest rounds that cryptsetup takes.
_FAST = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
# At the begin, and of the second copy behind it; and in a clone.
_MAGICS = (
    (b"LUKS\xba\xbe", b"RBDL\xba\xbe"),
    (b"SKUL\xba\xbe", b"LDBR\xba\xbe"),
)


def data_offset(image: Image) -> int:
    """Return where the data of an encrypted image begins, in bytes."""
    layout = image.layout()
    period = layout.object_bytes * layout.stripe_count
    return -(-HEADER_BYTES // period) * period


def encrypt(image: Image, passphrase: bytes) -> int:
    """Make an image encrypted that has not been written to.

    If it is a clone, its parent must have data_offset() bytes behind its data.
    That data is then read as it is, and what is written is encrypted. The
    ``rbd`` program must not flatten it without the passphrase: it would copy
    the parent's data to where this image has other data.

    :returns: data_offset(): the guest sees so many bytes less
    :raises ConversionError: cryptsetup failed, or is not installed
    """
    offset = data_offset(image)
    header = make_header(passphrase, offset)
    if image.parent() is not None:
        header = for_clone(header)
    # First: otherwise librbd would copy the parent's bytes beside the header.
    image.zero(0, offset)
    image.write(header, 0)
    image.flush()
    return offset


def make_header(passphrase: bytes, offset: int) -> bytes:
    """Return a new LUKS2 header, up to its last byte that is not zero.

    :param offset: where the data begins, in bytes
    :raises ConversionError: cryptsetup failed, or is not installed
    """
    with open(os.memfd_create("nova-rbd-luks"), "r+b") as file:
        # cryptsetup refuses a file that has no room for data.
        file.truncate(offset + (1 << 20))
        path = f"/proc/self/fd/{file.fileno()}"
        command = ["cryptsetup", "luksFormat", "--batch-mode", *_LIKE_LIBRBD]
        command += [*_KEYS, *_FAST, "--offset", str(offset // 512)]
        command += ["--disable-locks", "--key-file", "-", path]
        try:
            subprocess.run(  # noqa: S603
                command,
                input=passphrase,
                capture_output=True,
                check=True,
                timeout=_CRYPTSETUP_SECONDS,
                pass_fds=[file.fileno()],
            )
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or str(error).encode()
            raise errors.ConversionError(
                f"cryptsetup luksFormat: {said.decode(errors='replace')}"
            ) from None
        file.seek(0)
        return file.read(offset).rstrip(b"\0")


def for_clone(header: bytes) -> bytes:
    """Return a LUKS2 header with the magics that librbd wants in a clone.

    :raises ConversionError: it is none
    """
    if not header.startswith(_MAGICS[0][0]) or _MAGICS[1][0] not in header:
        raise errors.ConversionError("cryptsetup has made no LUKS2 header")
    for magic, clones in _MAGICS:
        header = header.replace(magic, clones, 1)
    return header
