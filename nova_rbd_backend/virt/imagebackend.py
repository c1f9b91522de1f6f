# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Rbd: what Nova's libvirt driver calls for each disk of an instance.

Nova's signatures (Image of nova.virt.libvirt.imagebackend, 26 to 34), and
the order of a boot:

1. a whole disk is there: only grow it;
2. clone from Glance's image when that is raw or ISO in this cluster;
3. let Nova fetch and convert the image with all its checks, import the file.

A disk of the wrong size is refused before anything is copied.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import nova.conf
from nova import exception
from nova.compute import utils as compute_utils
from nova.image import glance
from nova.virt import images
from nova.virt.libvirt import imagebackend
from nova.virt.libvirt import utils as libvirt_utils
from oslo_log import log as logging
from oslo_utils import fileutils, units

from nova_rbd_backend import metadata, names
from nova_rbd_backend.storage import provision
from nova_rbd_backend.virt import disk_xml, purger, rbd_utils

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)
IMAGE_API = glance.API()

CLONEABLE_FORMATS = ("raw", "iso")  # whose bytes are the disk's bytes


class Rbd(imagebackend.Image):
    """One disk of one instance in the pool that nova.conf names."""

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
            self.rbd_name = found.image
            self.driver = rbd_utils.RBDDriver(pool=found.pool)
        else:
            self.rbd_name = str(names.DiskName(instance.uuid, str(disk_name)))
            self.driver = rbd_utils.RBDDriver()
        self._instance = instance
        self._disk_name = disk_name
        # What create_image() was asked for, for clone(), which Nova calls
        # with the image alone.
        self._size_bytes: int | None = None
        self._trusted_certs: Any = None
        self._not_cloneable: exception.ImageUnacceptable | None = None
        super().__init__(
            names.ImagePath(self.driver.pool, "", self.rbd_name).for_qemu(
                self.driver.rbd_user, self.driver.ceph_conf
            ),
            "block",
            "rbd",
            is_block_dev=False,
            disk_info_mapping=disk_info_mapping,
        )

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
        try:
            self._create_image(prepare_template, base, size, *args, **kwargs)
        except Exception:
            # Nova may delete the instance without asking this host again:
            # what could not be undone now is undone in the background.
            purger.PURGER.start()
            raise

    def _create_image(
        self,
        prepare_template: Callable[..., None],
        base: str,
        size: int | None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        self._size_bytes = size
        self._trusted_certs = kwargs.get("trusted_certs")
        if "swap_mb" in kwargs:
            self._drop_smaller_swap(size)
        if self.exists():
            self._grow(size)
        elif "ephemeral_size" in kwargs or "swap_mb" in kwargs:
            self._create_generated(prepare_template, *args, **kwargs)
        elif not self._cloned(base, kwargs):
            self._create_fetched(prepare_template, base, *args, **kwargs)

    def _drop_smaller_swap(self, size: int | None) -> None:
        """Make a swap disk anew that a resize wants bigger.

        mkswap's header keeps the old size, so growing would give nothing.  A
        bigger one is kept: a resize to less swap may be reverted.
        """
        if size and self.exists() and self.get_disk_size("") < size:
            self.driver.remove_image(self.rbd_name)

    def _grow(self, size: int | None) -> None:
        if size is None:
            return
        found = self.get_disk_size(self.rbd_name)
        if self._disk_name != "disk.swap":
            self.verify_base_size(self.rbd_name, size, base_size=found)
        self.driver.resize(self.rbd_name, size)

    def _cloned(self, base: str, kwargs: Mapping[str, Any]) -> bool:
        """Clone first, without Nova's lock on the image's local file.

        Nova would try it under that lock, so one after the other on a host,
        and not at all once the file is there.
        """
        if "image_id" not in kwargs:
            return False
        try:
            self.clone(kwargs.get("context"), kwargs["image_id"])
        except exception.ImageUnacceptable as why:
            if CONF.workarounds.never_download_image_if_on_rbd:
                raise
            LOG.debug(
                "%(disk)s is not made as a clone: %(why)s",
                {"disk": self.rbd_name, "why": why},
            )
            self._not_cloneable = why  # Nova asks once more before a fetch.
            return False
        except exception.ImageNotFound:
            if os.path.exists(base):
                return False  # Gone from Glance, but fetched before.
            raise
        return True

    def _create_fetched(
        self,
        prepare_template: Callable[..., None],
        base: str,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Import what Nova fetched, checked and converted to raw."""
        prepare_template(*args, target=base, **kwargs)
        found = images.qemu_img_info(base)
        if found.file_format != "raw":
            # Of a qcow2 backend without force_raw_images, on this host or
            # before: disks may be based on it, so it is not for us to remove.
            raise exception.ImageUnacceptable(
                image_id=kwargs.get("image_id", base),
                reason=f"{base} in the image cache is {found.file_format}, "
                f"not raw: remove it once no local disk is based on it",
            )
        self.verify_base_size(
            base, self._size_bytes, base_size=found.virtual_size
        )
        self._import(base, kwargs.get("image_id"))

    def _create_generated(
        self, prepare_template: Callable[..., None], *args: Any, **kwargs: Any
    ) -> None:
        """Make an ephemeral or swap disk: only what mkfs wrote is copied.

        mkfs wants a file: a sparse one in the instance's own folder, so that
        what a killed run leaves goes when the instance goes.
        """
        folder = libvirt_utils.get_instance_path(self._instance)
        fileutils.ensure_tree(folder)
        staging = os.path.join(folder, f"{self.rbd_name}.staging")
        fileutils.delete_if_exists(staging)
        try:
            prepare_template(*args, target=staging, **kwargs)
            self._import(staging, None)
        finally:
            fileutils.delete_if_exists(staging)

    def _import(
        self, path: str, image_id: str | None, name: str | None = None
    ) -> None:
        name = name or self.rbd_name
        with compute_utils.disk_ops_semaphore:
            facts = self.driver.import_image(
                path,
                name,
                self._size_bytes,
                metadata=self._metadata(name, image_id),
            )
        self._tell("Imported", facts, image_id)

    def _tell(
        self, done: str, facts: provision.Facts, image_id: str | None
    ) -> None:
        LOG.info(
            "%(done)s %(pool)s/%(disk)s (%(size)d bytes, %(copied).1f MiB "
            "copied) from %(source)s in %(seconds).3f s",
            {
                "done": done,
                "pool": self.driver.pool,
                "disk": facts.name,
                "size": facts.size_bytes,
                "copied": facts.bytes_written / units.Mi,
                "source": f"image {image_id}" if image_id else "a local file",
                "seconds": facts.seconds,
            },
        )

    def _metadata(self, name: str, image_id: str | None) -> dict[str, str]:
        return metadata.describe(
            names.DiskName.parse(name),
            project_id=getattr(self._instance, "project_id", None),
            image_id=image_id,
        )

    def clone(
        self, context: Any, image_id_or_uri: str, copy_to_store: bool = True
    ) -> None:
        """Clone the first of the image's locations that is in this cluster.

        :raises nova.exception.ImageUnacceptable: no location can be cloned,
            or its signature must be verified, which needs all its bytes
        :raises nova.exception.FlavorDiskSmallerThanImage: before any change
        """
        if self._not_cloneable:
            raise self._not_cloneable
        if self._trusted_certs or CONF.glance.verify_glance_signatures:
            raise exception.ImageUnacceptable(
                image_id=image_id_or_uri,
                reason="its signature is to be verified: fetch it",
            )
        image_meta = IMAGE_API.get(
            context, image_id_or_uri, include_locations=True
        )
        if image_meta.get("disk_format") not in CLONEABLE_FORMATS:
            raise exception.ImageUnacceptable(
                image_id=image_id_or_uri, reason="it is not raw or ISO"
            )
        for location in image_meta.get("locations") or ():
            parent_bytes = self.driver.parent_size(location["url"])
            if parent_bytes is not None:
                self._clone(location, parent_bytes, image_id_or_uri)
                return
        if CONF.libvirt.images_rbd_glance_store_name and copy_to_store:
            self.copy_to_store(context, image_meta)
            self.clone(context, image_id_or_uri, copy_to_store=False)
            return
        raise exception.ImageUnacceptable(
            image_id=image_id_or_uri,
            reason=f"none of its locations is in the cluster of pool "
            f"{self.driver.pool}, visible and readable as "
            f"{self.driver.rbd_user}",
        )

    def _clone(
        self, location: Mapping[str, Any], parent_bytes: int, image_id: str
    ) -> None:
        self.verify_base_size(
            location["url"], self._size_bytes, base_size=parent_bytes
        )
        facts = self.driver.clone(
            location,
            self.rbd_name,
            size_bytes=self._size_bytes,
            metadata=self._metadata(self.rbd_name, image_id),
        )
        self._tell("Cloned", facts, image_id)

    def import_file(
        self, instance: Any, local_file: str, remote_name: str
    ) -> None:
        """Put a local raw file (the config drive) in place of the disk."""
        name = str(names.DiskName(instance.uuid, remote_name))
        self.driver.remove_image(name)
        self._instance = instance
        self._import(local_file, None, name=name)

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
        """Keep the disk's content under this name; no disk: nothing to keep.

        Nova asks before it makes a disk that is not there yet
        (driver.py:_create_and_inject_local_root, in a resize).
        """
        if self.exists():
            self.driver.create_snap(self.rbd_name, name)

    def remove_snap(self, name: str, ignore_errors: bool = False) -> None:
        """Remove a snap of the disk; not there: done."""
        self.driver.remove_snap(self.rbd_name, name)

    def rollback_to_snap(self, name: str) -> None:
        """Put the disk's content back to the snap's."""
        self.driver.rollback_to_snap(self.rbd_name, name)

    def snapshot_extract(self, target: str, out_format: str) -> None:
        """Copy the disk of a stopped guest into a local file."""
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
