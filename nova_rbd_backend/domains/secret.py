# SPDX-License-Identifier: Apache-2.0

"""The value of a libvirt secret."""

from typing import Any

import libvirt

from nova_rbd_backend import errors


def value(connection: Any, secret_uuid: str) -> bytes | None:
    """Return the secret's value; None: it is private.

    libvirt: virSecretGetValue.

    :raises errors.ConfigError: it is not defined, has no value, or cannot be
        read
    """
    try:
        secret = connection.secretLookupByUUIDString(secret_uuid)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SECRET:
            raise _unreadable(secret_uuid, error) from error
        raise errors.ConfigError(
            f"libvirt has no secret {secret_uuid} (rbd_secret_uuid): define "
            "it with `virsh secret-define` and give it the Ceph user's key, "
            "or correct the option"
        ) from error
    try:
        return bytes(secret.value())
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_INVALID_SECRET:
            return None
        if error.get_error_code() != libvirt.VIR_ERR_NO_SECRET:
            raise _unreadable(secret_uuid, error) from error
        raise errors.ConfigError(
            f"the libvirt secret {secret_uuid} has no value: give it the "
            "Ceph user's key with `virsh secret-set-value`"
        ) from error


def _unreadable(secret_uuid: str, error: Exception) -> errors.ConfigError:
    return errors.ConfigError(
        f"the libvirt secret {secret_uuid} cannot be read: {error}: check "
        "that libvirt's secret driver is there, and that this user may use it"
    )
