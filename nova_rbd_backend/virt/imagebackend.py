# SPDX-License-Identifier: Apache-2.0

"""Rbd: what Nova's libvirt driver calls for each disk of an instance.

Nova's signatures (Image of nova.virt.libvirt.imagebackend, 26 to 34).
"""

from collections.abc import Mapping
from typing import Any

import nova.conf
from nova import exception
from nova.compute import task_states
from nova.virt import images
from nova.virt.libvirt import imagebackend
from oslo_log import log as logging

from nova_rbd_backend import names
from nova_rbd_backend.virt import (
    disk_making,
    disk_place,
    disk_xml,
    rbd_utils,
    snapshot,
)

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

# What has Nova do a snapshot its own way (driver.py, snapshot()).
_MAKES_NOVA_COPY = (
    NotImplementedError,
    exception.ImageUnacceptable,
    exception.Forbidden,
)


class Rbd(disk_making.DiskMaking):
    """One disk of one instance, in the pool where it is or is to be made."""

    SUPPORTS_CLONE = True

    def __init__(
        self,
        instance: Any = None,
        disk_name: str | None = None,
        path: str | None = None,
        disk_info_mapping: Mapping[str, Any] | None = None,
    ) -> None:
        if path:
            found = names.ImagePath.of_qemu(path)
            if found is None:
                raise exception.InvalidDevicePath(path=path)
            self.rbd_name = found.image
            self.driver = rbd_utils.RBDDriver(pool=found.pool)
        else:
            self.rbd_name = str(names.DiskName(instance.uuid, str(disk_name)))
        self._instance = instance
        self._disk_name = disk_name
        super().__init__(
            None,
            "block",
            "rbd",
            is_block_dev=False,
            disk_info_mapping=disk_info_mapping,
        )

    @property
    def path(self) -> str:
        """What qemu-img opens it by."""
        return names.ImagePath(self.driver.pool, "", self.rbd_name).for_qemu(
            self.driver.rbd_user, self.driver.ceph_conf
        )

    @path.setter
    def path(self, value: Any) -> None:
        """Nova's __init__ sets it; it depends on where the disk is found."""

    # -- asking and changing it

    def exists(self) -> bool:
        """Whether the disk is there and whole."""
        return self.driver.exists(self.rbd_name)

    def get_disk_size(self, name: str) -> int:
        """Bytes of the virtual disk; Nova's name for it is not needed."""
        return self.driver.size(self.rbd_name)

    def resize_image(self, size: int) -> None:
        """Grow to ``size`` bytes; already as big or bigger: done."""
        self.driver.resize(self.rbd_name, size)

    def flatten(self) -> None:
        """Detach from the parent image; no parent: done."""
        self.driver.flatten(self.rbd_name)
        LOG.info("Flattened %s/%s", self.driver.pool, self.rbd_name)

    def create_snap(self, name: str) -> None:
        """Keep the disk's content as it was before a resize or migration.

        Nova asks on the destination, and makes a disk next if there is none
        (driver.py:_create_and_inject_local_root): right only in another cell,
        where it is made from a snapshot.

        :raises nova.exception.DiskNotFound: the disk is not where this host
            looks; a new one would stand for it
        """
        if self.exists() or self._look_in_new_pools():
            self.driver.create_snap(self.rbd_name, name)
        elif not disk_place.is_made_in_another_cell(self._instance):
            raise disk_place.not_here(self.rbd_name)

    def remove_snap(self, name: str, ignore_errors: bool = False) -> None:
        """Remove a snap of the disk; not there: done."""
        self.driver.remove_snap(self.rbd_name, name)

    def rollback_to_snap(self, name: str) -> None:
        """Put the disk's content back to the snap's.

        Not while the disk has yet to arrive: a nova-compute that died there
        reverts when it is started (manager.py:_init_instance), the resize has
        made no snap by then, and one of an earlier attempt is out of date.
        """
        state = getattr(self._instance, "task_state", None)
        if state != task_states.RESIZE_MIGRATING:
            self.driver.rollback_to_snap(self.rbd_name, name)

    def direct_snapshot(
        self,
        context: Any,
        snapshot_name: str,
        image_format: str,
        image_id: str,
        base_image_id: str,
    ) -> str:
        """Make the disk's content the content of Glance's image.

        All is done on return: Nova is left with no location to add, and
        with nothing to clean up where it fails later.

        :raises nova.exception.StorageError: and never what would have Nova
            suspend the guest and copy the disk instead
        """
        disk = names.ImagePath(self.driver.pool, "", self.rbd_name)
        try:
            snapshot.ToGlance(
                context, self._instance, disk, image_id, image_format
            ).run()
        except _MAKES_NOVA_COPY as error:
            raise exception.StorageError(reason=str(error)) from error
        return ""

    def cleanup_direct_snapshot(
        self,
        location: Any,
        also_destroy_volume: bool = False,
        ignore_errors: bool = False,
    ) -> None:
        """Leave all as it is: see direct_snapshot()."""

    def snapshot_extract(self, target: str, out_format: str) -> None:
        """Copy the disk of a stopped guest into a local file.

        Abstract in Nova's Image; asked for where direct_snapshot() gives up,
        which ours does not.
        """
        images.convert_image(self.path, target, "raw", out_format)

    @staticmethod
    def is_shared_block_storage() -> bool:
        """Each compute host on the cluster reaches the same disk."""
        return True

    def _can_fallocate(self) -> bool:
        return False

    # -- telling libvirt

    def libvirt_info(
        self,
        cache_mode: str | None,
        extra_specs: Mapping[str, str],
        boot_order: int | None = None,
        disk_unit: int | None = None,
    ) -> Any:
        """Describe the disk as Nova's LibvirtConfigGuestDisk."""
        info = super().libvirt_info(
            cache_mode, extra_specs, boot_order, disk_unit
        )
        return disk_xml.fill(info, self._source())

    def get_model(self, connection: Any) -> Any:
        """Describe the disk to libguestfs (file injection)."""
        return disk_xml.guestfs_model(self._source(), connection)

    def _source(self) -> disk_xml.Source:
        hosts, ports = self.driver.get_mon_addrs()
        return disk_xml.Source(
            pool=self.driver.pool,
            image=self.rbd_name,
            monitors=list(zip(hosts, ports, strict=True)),
            user=self.driver.rbd_user,
            secret_uuid=CONF.libvirt.rbd_secret_uuid,
        )


class Backend(imagebackend.Backend):
    """Nova's choice of backends, with ours for the type 'rbd'."""

    def __init__(self, use_cow: bool) -> None:
        super().__init__(use_cow)
        self.BACKEND["rbd"] = Rbd
