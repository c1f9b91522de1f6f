# SPDX-License-Identifier: Apache-2.0

"""The libvirt secret with which QEMU logs in to Ceph: is it there and right?

Nova's own connection uses a keyring, QEMU's this secret, and nothing compares
the two before the first guest fails to start. A real login does.
"""

import base64
import binascii
import logging
import struct
import typing

import libvirt

from nova_rbd_backend import errors
from nova_rbd_backend.storage import health, login, offload

LOG = logging.getLogger(__name__)

_KEY_HEAD = struct.Struct("<HIIH")  # auth/Crypto.cc: type, time, length


class Wanted(health.Wanted, typing.Protocol):
    """What is read of nova_rbd_backend.conf.Settings."""

    @property
    def secret_uuid(self) -> str | None: ...


def check(libvirt_connection: typing.Any, settings: Wanted) -> None:
    """Prove that guests can log in to Ceph. Blocks for the connect timeout.

    Without a secret in the settings there is nothing to prove.

    :param libvirt_connection: a virConnect that may read secrets
    :raises errors.Error: one line with what is wrong and how to mend it; the
        key is in no text
    """
    if not settings.secret_uuid:
        return
    value = _value(libvirt_connection, settings.secret_uuid)
    if value is None:
        LOG.warning(
            "The libvirt secret %s is private: whether it holds the key of "
            "client.%s shows when the first guest starts",
            settings.secret_uuid,
            settings.user,
        )
        return
    key = _key(value, settings)
    where = health.cluster_settings(settings)
    try:
        offload.run(lambda: login.try_key(where, key))
    except errors.NotPermitted:
        # from None: nothing that has seen the key goes into a traceback
        raise errors.ConfigError(
            f"the libvirt secret {settings.secret_uuid} holds another key "
            f"than that of client.{settings.user}: put what `ceph auth "
            f"get-key client.{settings.user}` prints into a file and run "
            f"`virsh secret-set-value {settings.secret_uuid} --file FILE`, "
            "without --plain"
        ) from None


def _value(connection: typing.Any, secret_uuid: str) -> bytes | None:
    """Return the secret's value; None if libvirt gives it to nobody."""
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


def _key(value: bytes, settings: Wanted) -> str:
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
