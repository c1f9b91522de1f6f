# SPDX-License-Identifier: Apache-2.0

"""How Rbd makes a disk, in the order of a boot.

1. a whole disk is there: only grow it;
2. clone from Glance's image when that is raw or ISO in this cluster;
3. clone from the pool's base of the image; the first one to want it makes the
   base, of what Nova fetched and converted with all its checks.

A disk of the wrong size is refused before anything is copied.
"""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import nova.conf
from nova import exception
from nova.compute import utils as compute_utils
from nova.compute import vm_states
from nova.image import glance
from nova.virt.libvirt import imagebackend
from oslo_log import log as logging
from oslo_utils import fileutils, units

from nova_rbd_backend import metadata, names
from nova_rbd_backend.storage import provision
from nova_rbd_backend.virt import (
    base_images,
    disk_place,
    image_source,
    imports,
    purger,
    rbd_utils,
    staging,
)
from nova_rbd_backend.virt.image_source import CLONEABLE_FORMATS

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)
IMAGE_API = glance.API()


class DiskMaking(imagebackend.Image):
    """The half of Rbd that makes disks; the other half knows their names."""

    rbd_name: str
    _instance: Any
    _disk_name: str | None

    #: Nova's: ask Glance to copy the image into its store in this cluster.
    copy_to_store = imagebackend.Rbd.copy_to_store

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # What create_image() was asked for, for clone(), which Nova calls
        # with the image alone.
        self._size_bytes: int | None = None
        self._trusted_certs: Any = None
        self._image_meta: Mapping[str, Any] = {}
        self._not_cloneable: exception.ImageUnacceptable | None = None
        super().__init__(*args, **kwargs)

    @functools.cached_property
    def driver(self) -> rbd_utils.RBDDriver:
        """The pool of the disk; looked for when it is first needed."""
        return disk_place.of_disk(
            self._instance, str(self._disk_name), self.rbd_name
        )

    def _look_in_new_pools(self) -> bool:
        """Look where only others did; whether the disk is there."""
        found = disk_place.found_anew(self._instance, self.rbd_name)
        if found is not None:
            self.driver = found
        return found is not None

    def _go_where_it_is_made(self) -> None:
        self.driver = disk_place.for_new(self._instance, str(self._disk_name))

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

        def fetch(path: str) -> None:
            prepare_template(*args, target=path, **kwargs)

        if not (self.exists() or self._look_in_new_pools()):
            disk_place.require_new(
                self._instance, str(self._disk_name), self.rbd_name
            )
        elif "swap_mb" not in kwargs or not self._drop_smaller_swap(size):
            self._grow(size)
            return
        self._go_where_it_is_made()
        if "ephemeral_size" in kwargs or "swap_mb" in kwargs:
            self._create_generated(
                fetch, os.path.basename(base), kwargs.get("specified_fs")
            )
        elif "image_id" not in kwargs:
            self._import_copy_of_other_host(fetch, base)
        else:
            self._create_of_image(
                fetch, kwargs.get("context"), kwargs["image_id"]
            )

    def _drop_smaller_swap(self, size: int | None) -> bool:
        """Remove a swap disk that a resize wants bigger; whether it was.

        mkswap's header keeps the old size, so growing would give nothing.  A
        bigger one is kept: a resize to less swap may be reverted.
        """
        smaller = bool(size) and self.get_disk_size("") < size
        if smaller:
            self.driver.remove_image(self.rbd_name)
        return smaller

    def _grow(self, size: int | None) -> None:
        if size is None:
            return
        found = self.get_disk_size(self.rbd_name)
        if self._disk_name != "disk.swap":
            self.verify_base_size(self.rbd_name, size, base_size=found)
        self.driver.resize(self.rbd_name, size)

    def _create_of_image(
        self, fetch: base_images.Fetch, context: Any, image_id: str
    ) -> None:
        """Clone the image where it is here, else a base that is made of it.

        First without Nova's lock on the image's local file: Nova would clone
        under that lock, so one after the other on a host, and not at all
        once the file is there.
        """
        try:
            self.clone(context, image_id)
            return
        except exception.ImageUnacceptable as why:
            if CONF.workarounds.never_download_image_if_on_rbd:
                raise
            LOG.debug(
                "%(disk)s is not a clone of Glance's image: %(why)s",
                {"disk": self.rbd_name, "why": why},
            )
            self._not_cloneable = why  # Nova asks once more before a fetch.
        if self._is_temporary():
            with staging.file(self.rbd_name) as path:
                self._fetch_and_import(fetch, path, image_id)
            return
        wanted = image_source.base_of_image(
            self._image_meta, self._trusted_certs
        )
        self._clone_base(wanted, fetch, self._verify_size, image_id)

    def _import_copy_of_other_host(
        self, fetch: base_images.Fetch, base: str
    ) -> None:
        """Import what Nova has another host send, if its image is gone.

        It is sent to the path that it has there (_try_fetch_image_cache).
        """
        was_here = os.path.exists(base)
        try:
            self._fetch_and_import(fetch, base, None)
        finally:
            if not was_here:
                fileutils.delete_if_exists(base)

    def _fetch_and_import(
        self, fetch: base_images.Fetch, path: str, image_id: str | None
    ) -> None:
        with (
            imports.slot(),
            imports.told(f"Disk {self.rbd_name}", path) as progress,
        ):
            fetch(path)
            self._verify_size(os.path.getsize(path))
            self._import(path, image_id, progress=progress)

    def _is_temporary(self) -> bool:
        """Whether Nova deletes the image once the disk is made of it.

        It is what a shelved instance's disk was saved as, or that of one
        that is resized into another cell (manager.py, _unshelve_instance,
        _finish_snapshot_based_resize_at_dest).
        """
        kind = self._image_meta.get("properties", {}).get("image_type")
        if kind != "snapshot":
            return False
        if self._instance.vm_state == vm_states.SHELVED_OFFLOADED:
            return True
        return disk_place.is_made_in_another_cell(self._instance)

    def _verify_size(self, found_bytes: int) -> None:
        self.verify_base_size(
            self.rbd_name, self._size_bytes, base_size=found_bytes
        )

    def _create_generated(
        self, fetch: base_images.Fetch, filename: str, file_system: str | None
    ) -> None:
        """Make an ephemeral or swap disk, of a base that Nova generates."""
        wanted = image_source.base_of_generated(
            filename,
            str(self._disk_name),
            self._size_bytes,
            getattr(self._instance, "os_type", None),
            file_system,
        )
        self._clone_base(wanted, fetch, lambda _size: None, None)

    def _clone_base(
        self,
        wanted: image_source.WantedBase,
        fetch: base_images.Fetch,
        verify: base_images.Verify,
        image_id: str | None,
    ) -> None:
        facts = base_images.BaseImages(self.driver).clone(
            wanted,
            fetch,
            verify,
            self.rbd_name,
            self._size_bytes,
            self._metadata(self.rbd_name, image_id),
        )
        self._tell("Cloned", facts, f"base {wanted.name}")

    def _import(
        self,
        path: str,
        image_id: str | None,
        name: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        name = name or self.rbd_name
        with compute_utils.disk_ops_semaphore:
            facts = self.driver.import_image(
                path,
                name,
                self._size_bytes,
                metadata=self._metadata(name, image_id),
                progress=progress,
            )
        source = f"image {image_id}" if image_id else "a local file"
        self._tell("Imported", facts, source)

    def _tell(self, done: str, facts: provision.Facts, source: str) -> None:
        LOG.info(
            "%(done)s %(pool)s/%(disk)s (%(size)d bytes, %(copied).1f MiB "
            "copied) from %(source)s in %(seconds).3f s",
            {
                "done": done,
                "pool": self.driver.pool,
                "disk": facts.name,
                "size": facts.size_bytes,
                "copied": facts.bytes_written / units.Mi,
                "source": source,
                "seconds": facts.seconds,
            },
        )

    def _metadata(self, name: str, image_id: str | None) -> dict[str, str]:
        of_class = self.driver.storage_class
        return metadata.describe(
            names.DiskName.parse(name),
            project_id=getattr(self._instance, "project_id", None),
            image_id=image_id,
            storage_class=of_class.name if of_class else None,
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
        self._image_meta = IMAGE_API.get(
            context, image_id_or_uri, include_locations=True
        )
        image_source.require_active(self._image_meta)
        if image_source.verified_with(self._trusted_certs):
            raise exception.ImageUnacceptable(
                image_id=image_id_or_uri,
                reason="its signature is to be verified: fetch it",
            )
        found = image_source.location_here(self.driver, self._image_meta)
        if found is not None:
            self._clone(found, image_id_or_uri)
            return
        if self._image_meta.get("disk_format") not in CLONEABLE_FORMATS:
            raise exception.ImageUnacceptable(
                image_id=image_id_or_uri, reason="it is not raw or ISO"
            )
        if (
            CONF.libvirt.images_rbd_glance_store_name
            and copy_to_store
            and not self._base_is_there()
        ):
            self.copy_to_store(context, self._image_meta)
            self.clone(context, image_id_or_uri, copy_to_store=False)
            return
        raise exception.ImageUnacceptable(
            image_id=image_id_or_uri,
            reason=f"none of its locations is in the cluster of pool "
            f"{self.driver.pool}, visible and readable as "
            f"{self.driver.rbd_user}",
        )

    def _base_is_there(self) -> bool:
        # Made when Glance could not copy the image: it is not asked again at
        # each boot.
        wanted = image_source.base_of_image(
            self._image_meta, self._trusted_certs
        )
        bases = base_images.BaseImages(self.driver)
        return bases.find(wanted) is not None

    def _clone(self, location: image_source.Location, image_id: str) -> None:
        self._verify_size(location.size_bytes)
        facts = self.driver.clone(
            location.facts,
            self.rbd_name,
            size_bytes=self._size_bytes,
            metadata=self._metadata(self.rbd_name, image_id),
        )
        self._tell("Cloned", facts, f"image {image_id}")

    def import_file(
        self, instance: Any, local_file: str, remote_name: str
    ) -> None:
        """Put a local raw file (the config drive) in place of the disk."""
        name = str(names.DiskName(instance.uuid, remote_name))
        self.driver.remove_image(name)
        self._instance = instance
        self._go_where_it_is_made()
        self._import(local_file, None, name=name)
