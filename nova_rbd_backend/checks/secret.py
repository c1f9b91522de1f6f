# SPDX-License-Identifier: Apache-2.0

"""Does libvirt have the right secret, with which QEMU logs in to Ceph?

Nova's own connection uses a keyring, but QEMU uses this secret. If they
differ, this shows only when the first guest fails to start. The check
therefore logs in with the key from the secret.
"""

import base64
import binascii
from typing import Any

from nova_rbd_backend import errors, threads
from nova_rbd_backend.ceph import connection, layouts
from nova_rbd_backend.domains import secret
from nova_rbd_backend.settings import Settings


def check(libvirt_connection: Any, settings: Settings) -> str | None:
    """Prove that guests can log in to Ceph. Blocks for the connect timeout.

    Does nothing if the settings have no secret.

    :param libvirt_connection: a virConnect that may read secrets
    :returns: why this cannot be proved; None: it is proved
    :raises errors.Error: one line with what is wrong and how to mend it, which
        never has the key
    """
    if not settings.secret_uuid:
        return None
    value = secret.value(libvirt_connection, settings.secret_uuid)
    if value is None:
        return (
            f"the libvirt secret {settings.secret_uuid} is private: only the "
            "start of the first guest will show whether it holds the key of "
            f"client.{settings.user}"
        )
    key = _key(value, settings)
    try:
        threads.run(lambda: connection.try_key(settings.cluster, key))
    except errors.NotPermitted:
        # from None: no frame that has the key may be in a traceback.
        what = f"another key than that of client.{settings.user}"
        raise _refusal(settings, what) from None
    return None


def _key(value: bytes, settings: Settings) -> str:
    """Return the key in the form that it has in a keyring."""
    if layouts.key_type(value) is not None:
        return base64.b64encode(value).decode()
    try:
        decoded = base64.b64decode(value.strip(), validate=True)
        twice = layouts.key_type(decoded) is not None
    except binascii.Error:
        twice = False
    what = "the text of a Ceph key, not decoded" if twice else "no Ceph key"
    raise _refusal(settings, what)


def _refusal(settings: Settings, what: str) -> errors.ConfigError:
    return errors.ConfigError(
        f"the libvirt secret {settings.secret_uuid} holds {what}: put what "
        f"`ceph auth get-key client.{settings.user}` prints into a file and "
        f"run `virsh secret-set-value {settings.secret_uuid} --file FILE`, "
        "without --plain"
    )
