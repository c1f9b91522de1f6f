# SPDX-License-Identifier: Apache-2.0

"""Rbd: the object that Nova's libvirt driver has for each disk.

Its methods have the signatures of Nova's Image
(nova.virt.libvirt.imagebackend, Nova 26 to 34).
"""

from collections.abc import Callable, Mapping
from typing import Any

from nova import exception
from nova.compute import task_states
from nova.virt import images
from nova.virt.libvirt import imagebackend
from oslo_log import log as logging

from nova_rbd_backend import names
from nova_rbd_backend.ceph.image import Image
from nova_rbd_backend.storage.disks import rollback
from nova_rbd_backend.virt import disk_xml, edge, encryption, rbd_utils
from nova_rbd_backend.virt.background import purger
from nova_rbd_backend.virt.boot import create_image, nova_fetch
from nova_rbd_backend.virt.disk import Disk
from nova_rbd_backend.virt.pools import choice
from nova_rbd_backend.virt.snapshot import to_glance

LOG = logging.getLogger(__name__)

# After these Nova makes a snapshot in its own way (driver.py, snapshot()).
_MAKES_NOVA_COPY = (
    NotImplementedError,
    exception.ImageUnacceptable,
    exception.Forbidden,
)


class Rbd(imagebackend.Image):
    """One disk of one instance, in the pool where it is or will be made."""

    SUPPORTS_CLONE = True

    #: Nova's own, which has Glance copy an image into its store in our cluster
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
            self.disk = Disk(instance, disk_name or "", found.image)
            self.disk.place = choice.in_pool(found.pool)
        else:
            name = str(disk_name)
            image = str(names.DiskName(instance.uuid, name))
            self.disk = Disk(instance, name, image)
        self._maker = create_image.Maker(self.disk, self, disk_info_mapping)
        super().__init__(
            None, "block", "rbd", disk_info_mapping=disk_info_mapping
        )

    @property
    def path(self) -> str:
        """The name by which qemu-img opens the disk."""
        settings = edge.settings()
        return self._image_path.for_qemu(settings.user, settings.ceph_conf)

    @path.setter
    def path(self, value: Any) -> None:
        """Ignore what Nova's __init__ sets: the path depends on the pool."""

    @property
    def _image_path(self) -> names.ImagePath:
        return names.ImagePath(self.disk.pool, "", self.disk.image)

    def cache(
        self,
        fetch_func: Callable[..., None],
        filename: str,
        size: int | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Make the disk, as Nova's method does, by our way to fetch an image.

        :param fetch_func: Nova's way to make what the disk is made of
        """
        if "image_id" in kwargs:
            fetch_func = nova_fetch.instead_of(fetch_func)
        super().cache(fetch_func, filename, size, *args, **kwargs)

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
        :param size: None: as big as the image
        :param safe: for Nova's file backends; an RBD disk is always raw
        """
        try:
            self._maker.create(prepare_template, base, size, *args, **kwargs)
        except Exception:
            # Nova may delete the instance without another call to this host.
            # The purger undoes what could not be undone now.
            purger.PURGER.start()
            raise

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
        """Replace the disk by a local raw file (the config drive)."""
        image = str(names.DiskName(instance.uuid, remote_name))
        disk = Disk(instance, self.disk.nova_name, image)
        disk.place = self.disk.place
        self.disk, self._maker = disk, create_image.Maker(disk, self)
        self._maker.replace(local_file)

    def exists(self) -> bool:
        return self.disk.exists()

    def get_disk_size(self, name: str) -> int:
        return self.disk.size_bytes()

    def resize_image(self, size: int) -> None:
        """Grow the disk. Does nothing if it is as big already."""
        self.disk.grow(size)

    def flatten(self) -> None:
        """Copy what the disk shares with its parent, if it has one."""
        self.disk.change(lambda image: image.flatten(), long=True)
        LOG.info("Flattened %s", self._image_path)

    def create_snap(self, name: str) -> None:
        """Keep the disk's content as it is before a resize or migration.

        An older snap of that name is removed. It is from an earlier attempt,
        and a rollback to it would lose what the guest has written since.

        Nova calls this on the destination, and then makes the disk if it does
        not exist (driver.py:_create_and_inject_local_root). That is right only
        in another cell, where the disk never exists, and is made from a
        snapshot.

        :raises nova.exception.DiskNotFound: no pool that this host knows has
            the disk; Nova would make a new disk instead
        """

        def replace(image: Image) -> None:
            image.remove_snap(name)
            image.create_snap(name)

        if self.exists() or self.disk.look_in_new_pools():
            self.disk.change(replace)
        elif not choice.is_cross_cell_move(self.disk.instance):
            raise choice.not_here(self.disk.image)

    def remove_snap(self, name: str, ignore_errors: bool = False) -> None:
        """Remove a snap, protected or not. Does nothing if there is none."""
        self.disk.change(lambda image: image.remove_snap(name))

    def rollback_to_snap(self, name: str) -> None:
        """Restore the content that the disk had when the snap was made.

        Does nothing in a resize that has not reached this host yet. If
        nova-compute dies in that state it calls this when it is started again
        (manager.py:_init_instance). The resize has made no snap by then, and a
        snap of an earlier attempt is out of date. Neither does a resize to
        another cell make a snap, or change the disk.
        """
        instance = self.disk.instance
        state = getattr(instance, "task_state", None)
        if state == task_states.RESIZE_MIGRATING:
            return
        if choice.is_cross_cell_move(instance):
            return
        pool, image = self.disk.place.pool, self.disk.image
        edge.run(lambda: rollback.roll_back(pool, image, name), long=True)

    def direct_snapshot(
        self,
        context: Any,
        snapshot_name: str,
        image_format: str,
        image_id: str,
        base_image_id: str,
    ) -> str:
        """Make a snapshot of the disk the content of Glance's image.

        The image is active on return. Nova has no location to add, and nothing
        to clean up if it fails later.

        :raises nova.exception.StorageError: in place of any exception after
            which Nova would suspend the guest and copy the disk
        """
        try:
            disk, instance = self._image_path, self.disk.instance
            to_glance.ToGlance(
                context, instance, disk, image_id, image_format
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
        """Do nothing: direct_snapshot() leaves nothing to clean up."""

    def snapshot_extract(self, target: str, out_format: str) -> None:
        """Copy the disk of a stopped guest into a local file.

        Nova's Image has it as an abstract method. The driver calls it only if
        direct_snapshot() gives up, which ours never does.
        """
        images.convert_image(self.path, target, "raw", out_format)

    @staticmethod
    def is_shared_block_storage() -> bool:
        return True

    def _can_fallocate(self) -> bool:
        return False

    def libvirt_info(
        self,
        cache_mode: str | None,
        extra_specs: Mapping[str, str],
        boot_order: int | None = None,
        disk_unit: int | None = None,
    ) -> Any:
        info = super().libvirt_info(
            cache_mode, extra_specs, boot_order, disk_unit
        )
        encrypted = encryption.is_wanted(self.disk_info_mapping)
        if encrypted:
            info.ephemeral_encryption = disk_xml.Encryption(
                str(self.disk_info_mapping["encryption_secret_uuid"])
            )
        return disk_xml.fill(info, self._source())

    def get_model(self, connection: Any) -> Any:
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
    """Nova's image backends, with ours for the type 'rbd'."""

    def __init__(self, use_cow: bool) -> None:
        super().__init__(use_cow)
        self.BACKEND["rbd"] = Rbd
