# SPDX-License-Identifier: Apache-2.0

"""The libvirt secret with which QEMU logs in to Ceph: is it there and right?

Nova's own connection uses a keyring, QEMU's this secret, and nothing compares
the two before the first guest fails to start. A real login does.
"""

import base64
import binascii
import struct
from typing import Any

from nova_rbd_backend import errors, threads
from nova_rbd_backend.ceph import connection
from nova_rbd_backend.domains import secret
from nova_rbd_backend.settings import Settings

_KEY_HEAD = struct.Struct("<HIIH")  # auth/Crypto.cc: type, time, length


def check(libvirt_connection: Any, settings: Settings) -> str | None:
    """Prove that guests can log in to Ceph. Blocks for the connect timeout.

    Without a secret in the settings there is nothing to prove.

    :param libvirt_connection: a virConnect that may read secrets
    :returns: why nothing can be proved; None: it is proved
    :raises errors.Error: one line with what is wrong and how to mend it; the
        key is in no text
    """
    if not settings.secret_uuid:
        return None
    value = secret.value(libvirt_connection, settings.secret_uuid)
    if value is None:
        return (
            f"the libvirt secret {settings.secret_uuid} is private: whether "
            f"it holds the key of client.{settings.user} shows when the first "
            "guest starts"
        )
    key = _key(value, settings)
    try:
        threads.run(lambda: connection.try_key(settings.cluster, key))
    except errors.NotPermitted:
        # from None: nothing that has seen the key goes into a traceback
        raise errors.ConfigError(
            f"the libvirt secret {settings.secret_uuid} holds another key "
            f"than that of client.{settings.user}: put what `ceph auth "
            f"get-key client.{settings.user}` prints into a file and run "
            f"`virsh secret-set-value {settings.secret_uuid} --file FILE`, "
            "without --plain"
        ) from None
    return None


def _key(value: bytes, settings: Settings) -> str:
    """Return the key as a keyring has it."""
    if _is_key(value):
        return base64.b64encode(value).decode()
    try:
        twice = _is_key(base64.b64decode(value.strip(), validate=True))
    except binascii.Error:
        twice = False
    what = "the text of a Ceph key, not decoded" if twice else "no Ceph key"
    raise errors.ConfigError(
        f"the libvirt secret {settings.secret_uuid} holds {what}: put the key "
        f"of client.{settings.user} into a file and run `virsh "
        f"secret-set-value {settings.secret_uuid} --file FILE`, without "
        "--plain"
    )


def _is_key(value: bytes) -> bool:
    if len(value) <= _KEY_HEAD.size:
        return False
    *_, length = _KEY_HEAD.unpack_from(value)
    return bool(length == len(value) - _KEY_HEAD.size)
