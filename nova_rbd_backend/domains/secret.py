# SPDX-License-Identifier: Apache-2.0

"""The value of a libvirt secret."""

import contextlib
from typing import Any

with contextlib.suppress(ImportError):  # see domains.connection
    import libvirt

from nova_rbd_backend import errors


def value(connection: Any, secret_uuid: str) -> bytes | None:
    """Return the secret's value; None: it is private.

    libvirt: virSecretGetValue.

    :raises errors.ConfigError: the secret is not defined, has no value, or
        cannot be read
    """
    missing = (
        f"libvirt has no secret {secret_uuid} (rbd_secret_uuid): define it "
        "with `virsh secret-define` and give it the Ceph user's key, or "
        "correct the option"
    )
    try:
        secret = connection.secretLookupByUUIDString(secret_uuid)
        missing = (
            f"the libvirt secret {secret_uuid} has no value: give it the "
            "Ceph user's key with `virsh secret-set-value`"
        )
        return bytes(secret.value())
    except libvirt.libvirtError as error:
        code = error.get_error_code()
        if code == libvirt.VIR_ERR_INVALID_SECRET:
            return None
        if code == libvirt.VIR_ERR_NO_SECRET:
            raise errors.ConfigError(missing) from error
        raise errors.ConfigError(
            f"the libvirt secret {secret_uuid} cannot be read: {error}: check "
            "that libvirt's secret driver is there, and that this user may "
            "use it"
        ) from error
