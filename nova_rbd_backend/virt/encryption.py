# SPDX-License-Identifier: Apache-2.0

"""Encrypted disks: their passphrases on this host, and when they go.

Nova (34) makes a passphrase for each disk in the key manager, and puts it into
a secret of libvirt before it makes the disk (driver.py,
_add_ephemeral_encryption_driver_bdm_attrs), on the host where it makes it. It
does so nowhere else. This module does it on every other host that starts the
guest, and removes the secret from those that the guest has left. Nova leaves
the passphrase of a deleted server in the key manager; this module deletes it.

What a disk is to be comes with Nova's disk_info_mapping (blockinfo.py,
get_info_from_bdm).
"""

import shutil
from collections.abc import Iterable, Mapping
from typing import Any

from nova import crypto, exception
from nova.objects import block_device
from nova.virt import driver as nova_driver
from oslo_log import log as logging

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.image import can_decrypt_clones
from nova_rbd_backend.domains import disk_xml
from nova_rbd_backend.domains import passphrase as passphrases
from nova_rbd_backend.virt import compat, edge

LOG = logging.getLogger(__name__)
# Nova's name for LUKS. Its "luksv2" is refused by its own XML.
_FORMAT = "luks"
# <encryption engine=...> (libvirt's formatstorageencryption).
_MIN_LIBVIRT = (7, 9, 0)
# Of our driver, when there is one.
_hosts: list[Any] = []


def use_secrets_of(host: Any) -> None:
    """Look for secrets on Nova's Host from now on."""
    _hosts[:] = [host]


def obstacle(host: Any) -> str | None:
    """Return why this host can have no encrypted disks; None: it can."""
    if not edge.settings().encrypted_disks:
        return "[nova_rbd] encrypted_disks is not set"
    if not _is_known_to_nova():
        return "its Nova makes no passphrases, as Nova 34 does"
    if not can_decrypt_clones():
        return "its librbd is older than Ceph 18"
    if not host.has_min_version(_MIN_LIBVIRT):
        return "its libvirt is older than 7.9"
    if shutil.which("cryptsetup") is None:
        return "cryptsetup is not installed"
    return None


def _is_known_to_nova() -> bool:
    return not list(compat.missing(compat.ENCRYPTION))


def is_wanted(mapping: Mapping[str, Any] | None) -> bool:
    """Return whether Nova wants a disk to be encrypted."""
    return bool(mapping and mapping.get("encrypted"))


def passphrase(mapping: Mapping[str, Any] | None, disk: str) -> bytes | None:
    """Return the passphrase of a disk; None: it is not to be encrypted.

    :param disk: for messages
    :raises nova.exception.StorageError: it cannot be encrypted as Nova asks
    """
    if not is_wanted(mapping):
        return None
    assert mapping is not None
    if mapping.get("encryption_format") != _FORMAT:
        raise _refused(
            disk,
            f"the format {mapping.get('encryption_format')!r} is not "
            f"supported; set hw:ephemeral_encryption_format to {_FORMAT!r}",
        )
    if why := obstacle(_hosts[0]):
        raise _refused(disk, why)
    secret_uuid = str(mapping.get("encryption_secret_uuid"))
    found = _value(_hosts[0], secret_uuid)
    if found is None:
        raise _refused(
            disk, f"libvirt has no passphrase in secret {secret_uuid}"
        )
    return found


def _refused(disk: str, why: str) -> exception.StorageError:
    return exception.StorageError(reason=f"{disk} cannot be encrypted: {why}")


def encrypted_disks(block_device_info: Any) -> dict[str, str]:
    """Return the ids of Nova's block devices by the UUIDs of their secrets."""
    if not _is_known_to_nova():
        return {}
    found = nova_driver.block_device_info_get_encrypted_disks(
        block_device_info
    )
    return {
        str(each["encryption_secret_uuid"]): str(each["uuid"])
        for each in found
        if each.get("encryption_secret_uuid")
    }


def have_for_start(host: Any, context: Any, instance: Any, xml: str) -> None:
    """Have the secrets of a domain that is to be started on this host.

    :raises nova.exception.StorageError: the key manager does not give one
    """
    wanted = disk_xml.encryption_secrets(xml)
    if missing := [each for each in wanted if _value(host, each) is None]:
        devices = block_device.BlockDeviceMappingList.get_by_instance_uuid(
            context, instance.uuid
        )
        known = {
            str(each.encryption_secret_uuid): str(each.uuid)
            for each in devices
        }
        _fetch(host, context, instance, missing, known)


def have(
    host: Any, context: Any, instance: Any, block_device_info: Any
) -> None:
    """Have the secrets of an instance's encrypted disks on this host.

    :raises nova.exception.StorageError: this host can have no such disks, or
        the key manager does not give a passphrase
    """
    wanted = encrypted_disks(block_device_info)
    if not wanted:
        return
    if why := obstacle(host):
        raise _refused(f"a disk of {instance.uuid}", why)
    missing = [each for each in wanted if _value(host, each) is None]
    _fetch(host, context, instance, missing, wanted)


def _value(host: Any, secret_uuid: str) -> bytes | None:
    try:
        return passphrases.value(host.get_connection(), secret_uuid)
    except errors.LibvirtFault as error:
        raise exception.StorageError(reason=str(error)) from error


def _fetch(
    host: Any,
    context: Any,
    instance: Any,
    secret_uuids: Iterable[str],
    devices: Mapping[str, str],
) -> None:
    for secret_uuid in secret_uuids:
        try:
            found = crypto.get_encryption_secret(context, secret_uuid)
            if found is None:
                raise LookupError("it has no such secret")
        except Exception as error:
            raise exception.StorageError(
                reason="the key manager does not give the passphrase in "
                f"secret {secret_uuid} to user {context.user_id} of project "
                f"{context.project_id}, and libvirt does not have it here: "
                f"{error}"
            ) from error
        host.create_secret(
            "volume",
            f"{instance.uuid}_{devices.get(secret_uuid, secret_uuid)}",
            password=found,
            uuid=secret_uuid,
        )
        LOG.info("Fetched secret %s", secret_uuid, instance=instance)


def require_plain(host: Any, instance: Any, what: str) -> None:
    """Refuse what takes a snapshot, before anything has changed.

    :raises nova.exception.StorageError: a disk of the domain is encrypted
    """
    try:
        xml = host.get_guest(instance).get_xml_desc()
    except exception.InstanceNotFound:
        return
    if disk_xml.encryption_secrets(xml):
        raise exception.StorageError(
            reason=f"{instance.uuid} cannot {what}: its disks are encrypted, "
            "and Nova has no encrypted images. Nothing has changed"
        )


def forget(host: Any, instance: Any) -> None:
    """Remove the secrets of an instance from this host's libvirt."""
    try:
        passphrases.remove_all(host.get_connection(), instance.uuid)
    except errors.LibvirtFault as error:
        LOG.warning(
            "The passphrases of a guest that has left this host stay in its "
            "libvirt: %s",
            error,
            instance=instance,
        )


def delete_keys(context: Any, instance: Any, block_device_info: Any) -> None:
    """Delete the passphrases of a deleted server, whose disks are gone."""
    for secret_uuid in encrypted_disks(block_device_info):
        try:
            crypto.delete_encryption_secret(
                context, instance.uuid, secret_uuid
            )
        except Exception as error:
            LOG.warning(
                "Secret %s stays in the key manager, although its disk is "
                "deleted: %s",
                *(secret_uuid, error),
                instance=instance,
            )
