# SPDX-License-Identifier: Apache-2.0

"""The passphrases of encrypted disks, in secrets of libvirt."""

import contextlib
from typing import Any

with contextlib.suppress(ImportError):  # see domains.connection
    import libvirt

from nova_rbd_backend import errors


def value(connection: Any, secret_uuid: str) -> bytes | None:
    """Return a passphrase; None: there is no such secret, or it is empty.

    libvirt: virSecretGetValue.

    :raises errors.LibvirtFault: it cannot be read
    """
    try:
        secret = connection.secretLookupByUUIDString(secret_uuid)
        return bytes(secret.value())
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SECRET:
            return None
        raise errors.LibvirtFault(f"read secret {secret_uuid}: {error}") from (
            error
        )


def remove_all(connection: Any, instance: str) -> None:
    """Remove the passphrases of an instance's disks from this host.

    Nova names them ``<instance>_<block device>``, and those of Cinder's
    volumes after the volume.

    libvirt: virSecretUndefine.

    :raises errors.LibvirtFault: libvirt refuses
    """
    try:
        for secret in connection.listAllSecrets(0):
            kind = secret.usageType()
            if kind == libvirt.VIR_SECRET_USAGE_TYPE_VOLUME and (
                secret.usageID().startswith(f"{instance}_")
            ):
                secret.undefine()
    except libvirt.libvirtError as error:
        raise errors.LibvirtFault(
            f"remove the secrets of {instance}: {error}"
        ) from error
