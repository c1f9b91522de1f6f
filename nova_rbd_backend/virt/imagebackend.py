# SPDX-License-Identifier: Apache-2.0

"""Rbd: what Nova's libvirt driver calls for each disk of an instance.

Nova's signatures (Image of nova.virt.libvirt.imagebackend, 26 to 34).
"""

from collections.abc import Callable, Mapping
from typing import Any

from nova import exception
from nova.compute import task_states
from nova.virt import images
from nova.virt.libvirt import imagebackend
from oslo_log import log as logging

from nova_rbd_backend import names
from nova_rbd_backend.virt import disk_xml, edge, rbd_utils
from nova_rbd_backend.virt.boot import create_image
from nova_rbd_backend.virt.disk import Disk
from nova_rbd_backend.virt.pools import choice
from nova_rbd_backend.virt.snapshot import to_glance

LOG = logging.getLogger(__name__)

# What makes Nova take a snapshot its own way (driver.py, snapshot()).
_MAKES_NOVA_COPY = (
    NotImplementedError,
    exception.ImageUnacceptable,
    exception.Forbidden,
)


class Rbd(imagebackend.Image):
    """One disk of one instance, in the pool where it is or is to be made."""

    SUPPORTS_CLONE = True

    #: Nova's: ask Glance to copy the image into its store in this cluster.
    copy_to_store = imagebackend.Rbd.copy_to_store

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
            self.disk = Disk(instance, disk_name, found.image)
            self.disk.place = choice.in_pool(found.pool)
        else:
            image = str(names.DiskName(instance.uuid, str(disk_name)))
            self.disk = Disk(instance, disk_name, image)
        self._maker = create_image.Maker(self.disk, self)
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
        return self._image_path.for_qemu(
            edge.settings().user, edge.settings().ceph_conf
        )

    @path.setter
    def path(self, value: Any) -> None:
        """Nova's __init__ sets it; ours depends on where the disk is found."""

    @property
    def _image_path(self) -> names.ImagePath:
        return names.ImagePath(self.disk.pool, "", self.disk.image)

    # -- making it

    def create_image(
        self,
        prepare_template: Callable[..., None],
        base: str,
        size: int | None,
        safe: bool = False,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Make the disk whole and at least ``size`` bytes big.

        :param base: Nova's file for a fetched image, in its local cache
        :param size: bytes; None: as big as the image
        :param safe: for Nova's file backends; an RBD disk is always raw
        """
        self._maker.create(prepare_template, base, size, *args, **kwargs)

    def clone(self, context: Any, image_id_or_uri: str) -> None:
        """Clone the first of the image's locations that is in this cluster.

        :raises nova.exception.ImageUnacceptable: no location can be cloned,
            or its signature must be verified, which needs all its bytes
        :raises nova.exception.FlavorDiskSmallerThanImage: before any change
        """
        self._maker.clone(context, image_id_or_uri)

    def import_file(
        self, instance: Any, local_file: str, remote_name: str
    ) -> None:
        """Put a local raw file (the config drive) in place of the disk."""
        image = str(names.DiskName(instance.uuid, remote_name))
        disk = Disk(instance, self.disk.nova_name, image)
        disk.place = self.disk.place
        self.disk, self._maker = disk, create_image.Maker(disk, self)
        self._maker.replace(local_file)

    # -- asking and changing it

    def exists(self) -> bool:
        """Return whether the disk exists, whole."""
        return self.disk.exists()

    def get_disk_size(self, name: str) -> int:
        """Return the virtual disk's bytes; Nova's name for it is not used."""
        return self.disk.size_bytes()

    def resize_image(self, size: int) -> None:
        """Grow to ``size`` bytes. As big already: done."""
        self.disk.grow(size)

    def flatten(self) -> None:
        """Detach the disk from its parent image. No parent: done."""
        self.disk.flatten()
        LOG.info("Flattened %s", self._image_path)

    def create_snap(self, name: str) -> None:
        """Keep the disk's content as it was before a resize or migration.

        Nova asks on the destination, and makes a disk next if there is none
        (driver.py:_create_and_inject_local_root). That is right only in
        another cell, where the disk is made from a snapshot.

        :raises nova.exception.DiskNotFound: the disk is not where this host
            looks; a new disk would take its place
        """
        if self.exists() or self.disk.look_in_new_pools():
            self.disk.replace_snap(name)
        elif not choice.is_made_in_another_cell(self.disk.instance):
            raise choice.not_here(self.disk.image)

    def remove_snap(self, name: str, ignore_errors: bool = False) -> None:
        """Remove a snap of the disk. No such snap: done."""
        self.disk.remove_snap(name)

    def rollback_to_snap(self, name: str) -> None:
        """Put the disk's content back to the snap's.

        Does nothing while the disk has yet to arrive: a nova-compute that
        died there reverts when it is started (manager.py:_init_instance). The
        resize has made no snap by then, and a snap of an earlier attempt is
        out of date.
        """
        state = getattr(self.disk.instance, "task_state", None)
        if state != task_states.RESIZE_MIGRATING:
            self.disk.roll_back(name)

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

        :raises nova.exception.StorageError: and never an exception that would
            have Nova suspend the guest and copy the disk instead
        """
        try:
            to_glance.ToGlance(
                context,
                self.disk.instance,
                self._image_path,
                image_id,
                image_format,
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

        Abstract in Nova's Image, which calls it where direct_snapshot() gives
        up. Ours does not.
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
        hosts, ports = rbd_utils.RBDDriver().get_mon_addrs()
        settings = edge.settings()
        return disk_xml.Source(
            pool=self.disk.pool,
            image=self.disk.image,
            monitors=list(zip(hosts, ports, strict=True)),
            user=settings.user,
            secret_uuid=settings.secret_uuid,
        )


class Backend(imagebackend.Backend):
    """Nova's choice of backends, with ours for the type 'rbd'."""

    def __init__(self, use_cow: bool) -> None:
        super().__init__(use_cow)
        self.BACKEND["rbd"] = Rbd
