# SPDX-License-Identifier: Apache-2.0

"""Find out of which type the key in a user's keyring is.

A librados before Ceph 20 cannot read keys of type aes256k. It writes such a
key to stderr, which is nova-compute's log, as soon as it reads its conf file.
"""

import base64
import binascii
import configparser
import contextlib

import rados

from nova_rbd_backend.ceph import layouts
from nova_rbd_backend.settings import ClusterSettings

#: The type of key that every librados reads.
AES = 1
#: For a librados that may not be able to read its key.
QUIET = {"err_to_stderr": "false", "log_to_stderr": "false"}


def type_of(settings: ClusterSettings) -> int | None:
    """Return the type of the user's key; None: unknown. Connects to nothing.

    librados: rados_conf_get.
    """
    with contextlib.suppress(rados.Error):
        handle = rados.Rados(
            conf_defaults=QUIET,
            conffile=settings.conf_file or "",
            rados_id=settings.user,
        )
        paths = handle.conf_get("keyring") or ""
        handle.shutdown()
        user = f"client.{settings.user or 'admin'}"
        for path in paths.split(","):
            keyring = configparser.ConfigParser(
                interpolation=None, strict=False
            )
            with contextlib.suppress(
                OSError, ValueError, configparser.Error, binascii.Error
            ):
                with open(path.strip()) as file:
                    # Keyrings are indented, which ConfigParser reads as the
                    # rest of the line before.
                    keyring.read_string("\n".join(map(str.strip, file)))
                text = keyring.get(user, "key", fallback="").strip('"')
                return layouts.key_type(base64.b64decode(text))
    return None
