# SPDX-License-Identifier: Apache-2.0

"""Make a disk, in the order of a boot.

1. If a whole disk exists, only grow it.
2. Clone Glance's image, if it is raw or ISO and in this cluster.
3. Clone the pool's base of the image. The first boot that needs the base makes
   it from what Nova has fetched and converted, with all of Nova's checks.

A size that does not fit is refused before the disk is made.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import nova.conf
from nova import exception
from nova.compute import utils as compute_utils
from nova.image import glance
from oslo_log import log as logging
from oslo_utils import fileutils, units

from nova_rbd_backend import metadata, names
from nova_rbd_backend.storage.bases import make as bases_
from nova_rbd_backend.storage.disks import provision
from nova_rbd_backend.virt import edge, encryption
from nova_rbd_backend.virt.boot import bases, fetch, glance_image, staging
from nova_rbd_backend.virt.disk import Disk
from nova_rbd_backend.virt.pools import choice

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)
IMAGE_API = glance.API()


class Maker:
    """Makes one disk as Nova's create_image() asks for it.

    create() keeps its arguments for clone(), which Nova's Image calls from
    within create() with nothing but the image.
    """

    def __init__(
        self,
        disk: Disk,
        nova_image: Any,
        mapping: Mapping[str, Any] | None = None,
    ) -> None:
        """:param nova_image: the Rbd that Nova holds
        :param mapping: Nova's disk_info_mapping, if the disk is in the domain
        """
        self._mapping = mapping
        self._disk = disk
        self._nova_image = nova_image
        self._size_bytes: int | None = None
        self._trusted_certs: Any = None
        self._image_meta: Mapping[str, Any] = {}
        self._not_cloneable: exception.ImageUnacceptable | None = None
        self._old_kept_seconds: int | None = None

    def create(
        self,
        prepare_template: Callable[..., None],
        base: str,
        size: int | None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Make the disk whole; see Rbd.create_image."""
        self._size_bytes = size
        self._trusted_certs = kwargs.get("trusted_certs")
        disk, old = self._disk, None

        def prepare(path: str) -> None:
            prepare_template(*args, target=path, **kwargs)

        if not (disk.exists() or disk.look_in_new_pools()):
            choice.require_new(disk.instance, disk.nova_name, disk.image)
        elif "swap_mb" in kwargs and size and disk.size_bytes() < size:
            # mkswap's header keeps the old size, so a bigger swap disk has to
            # be made anew. A disk that is too big is kept, because the resize
            # to less swap may be reverted.
            old = disk.place
        else:
            self._require_made_of(kwargs.get("image_id"))
            self._require_encrypted()
            self._grow()
            return
        disk.go_where_it_is_made()
        if "ephemeral_size" in kwargs or "swap_mb" in kwargs:
            wanted = glance_image.base_of_generated(
                os.path.basename(base),
                disk.nova_name,
                size,
                getattr(disk.instance, "os_type", None),
                kwargs.get("specified_fs"),
            )
            with self._replacing(old):
                self._clone_base(wanted, prepare, lambda _bytes: None)
        elif "image_id" not in kwargs:
            self._import_copy_of_other_host(prepare, base)
        else:
            self._create_of_image(
                prepare, kwargs.get("context"), kwargs["image_id"]
            )

    def replace(self, local_file: str) -> None:
        """Replace the disk by a local raw file."""
        old = self._disk.place
        self._disk.go_where_it_is_made()
        with self._replacing(old):
            self._import(staging.StagedFile(local_file), None)

    @contextlib.contextmanager
    def _replacing(self, old: choice.Place | None) -> Iterator[None]:
        """Have the block replace the old disk, once the new one is whole.

        :param old: where it is, if it exists; None: there is none
        """
        if old is not None:
            self._old_kept_seconds = edge.settings().trash_retention_seconds
        try:
            yield
        finally:
            self._old_kept_seconds = None
        if old is not None and old.pool.name != self._disk.pool:
            self._disk.delete(old)

    def _grow(self) -> None:
        if self._size_bytes is None:
            return
        if self._disk.nova_name != "disk.swap":
            self._verify_size(self._disk.size_bytes())
        self._disk.grow(self._size_bytes)

    def _create_of_image(
        self, prepare: bases.Prepare, context: Any, image_id: str
    ) -> None:
        """Clone the image if it is here, otherwise a base that is made of it.

        This does not take Nova's lock on the image's local file. Nova clones
        only while it has that lock, which is one disk at a time on a host, and
        not at all once the file exists.
        """
        try:
            # Through Rbd.clone(), as Nova itself calls it.
            self._nova_image.clone(context, image_id)
            return
        except exception.ImageUnacceptable as why:
            if CONF.workarounds.never_download_image_if_on_rbd:
                raise
            disk = self._disk.image
            LOG.debug("%s is not a clone of Glance's image: %s", disk, why)
            # Nova calls clone() once more before it fetches the image.
            self._not_cloneable = why
        if self._is_temporary():
            with staging.staged_file(self._disk.image) as staged:
                self._fetch_and_import(prepare, staged, image_id)
            return
        wanted = glance_image.base_of_image(
            self._image_meta, self._trusted_certs
        )
        self._clone_base(wanted, prepare, self._verify_size, image_id)

    def _import_copy_of_other_host(
        self, prepare: bases.Prepare, base: str
    ) -> None:
        """Import a file that Nova has another host send, as the image is gone.

        Nova puts it at the path of the other host's file
        (_try_fetch_image_cache).
        """
        was_here = os.path.exists(base)
        try:
            staged = staging.StagedFile(base)
            self._fetch_and_import(prepare, staged, None)
        finally:
            if not was_here:
                fileutils.delete_if_exists(base)

    def _fetch_and_import(
        self,
        prepare: bases.Prepare,
        staged: staging.StagedFile,
        image_id: str | None,
    ) -> None:
        if encryption.is_wanted(self._mapping):
            raise exception.StorageError(
                reason=f"{self._disk.image} cannot be encrypted: it is to be "
                "made of a copy of its image, and not of a clone"
            )
        what = f"Disk {self._disk.image}"
        with (
            fetch.slot(),
            fetch.progress_logged(what, staged.path) as progress,
        ):
            prepare(staged.path)
            self._verify_size(os.path.getsize(staged.path))
            self._import(staged, image_id, progress)

    def _is_temporary(self) -> bool:
        """Return whether Nova deletes the image once the disk is made of it.

        Such an image is not worth a base.
        """
        kind = self._image_meta.get("properties", {}).get("image_type")
        return kind == "snapshot" and choice.is_made_of_temporary_image(
            self._disk.instance
        )

    def _require_made_of(self, image_id: str | None) -> None:
        """Refuse to unshelve a server with another disk than its own.

        The image has the server's only current data, and Nova deletes it when
        the server has started. A disk that exists already is of an earlier
        life of the server, unless it was made of that very image.

        :raises nova.exception.StorageError: it was not
        """
        if image_id is None or not choice.is_unshelved(self._disk.instance):
            return
        found = self._disk.metadata().get(metadata.BASE_IMAGE)
        if found != image_id:
            # Nova cuts a fault after 255 characters.
            raise exception.StorageError(
                reason=f"{self._disk.pool}/{self._disk.image} exists, made of "
                f"image {found or 'unknown'}; the server's data is in image "
                f"{image_id}. If it is left from an earlier attempt, move it "
                "to the trash and unshelve again"
            )

    def _require_encrypted(self) -> None:
        """Refuse an existing disk that is plain where Nova wants it encrypted.

        :raises nova.exception.StorageError: it is
        """
        if not encryption.is_wanted(self._mapping):
            return
        if not metadata.data_offset(self._disk.metadata()):
            raise exception.StorageError(
                reason=f"{self._disk.pool}/{self._disk.image} exists, and is "
                "not encrypted. If it is left from an earlier attempt, move "
                "it to the trash"
            )

    def _verify_size(self, found_bytes: int) -> None:
        self._nova_image.verify_base_size(
            self._disk.image, self._size_bytes, base_size=found_bytes
        )

    def _clone_base(
        self,
        wanted: glance_image.WantedBase,
        prepare: bases.Prepare,
        verify: bases.Verify,
        image_id: str | None = None,
    ) -> None:
        made = bases.BaseImages(self._disk.place.pool).clone(
            wanted,
            prepare,
            verify,
            self._disk.image,
            self._size_bytes,
            self._metadata(image_id),
            self._old_kept_seconds,
            self._passphrase(),
        )
        self._log("Cloned", made, f"base {wanted.name}")

    def _import(
        self,
        staged: staging.StagedFile,
        image_id: str | None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        pool, disk = self._disk.place.pool, self._disk.image
        size, facts = self._size_bytes, self._metadata(image_id)
        workers = edge.settings().import_workers
        kept_seconds = self._old_kept_seconds

        def provisioned() -> provision.Provisioned:
            with staged.refused_if_damaged(image_id):
                return provision.import_disk(
                    *(pool, disk, staged.data_path, size, facts),
                    *(progress, workers, kept_seconds, staged.packed),
                )

        with compute_utils.disk_ops_semaphore:
            made = edge.run(provisioned, long=True)
        source = f"image {image_id}" if image_id else "a local file"
        self._log("Imported", made, source)

    def _log(
        self, done: str, made: provision.Provisioned, source: str
    ) -> None:
        LOG.info(
            "%(done)s %(pool)s/%(disk)s (%(size)d bytes, %(copied).1f MiB "
            "copied) from %(source)s in %(seconds).3f s",
            {
                "done": done,
                "pool": self._disk.pool,
                "disk": made.name,
                "size": made.size_bytes,
                "copied": made.bytes_written / units.Mi,
                "source": source,
                "seconds": made.seconds,
            },
        )

    def _passphrase(self) -> bytes | None:
        """Return what to encrypt the disk with; None: it is to be plain."""
        return encryption.passphrase(self._mapping, self._disk.image)

    def _metadata(self, image_id: str | None) -> dict[str, str]:
        instance = self._disk.instance
        of_class = self._disk.place.storage_class
        return metadata.describe(
            names.DiskName.parse(self._disk.image),
            project_id=getattr(instance, "project_id", None),
            image_id=image_id,
            storage_class=of_class.name if of_class else None,
            move=choice.cross_cell_move(instance),
        )

    def clone(
        self, context: Any, image_id: str, copy_to_store: bool = True
    ) -> None:
        """Clone one of the image's locations; see Rbd.clone."""
        if self._not_cloneable:
            raise self._not_cloneable

        def unacceptable(reason: str) -> exception.ImageUnacceptable:
            return exception.ImageUnacceptable(
                image_id=image_id, reason=reason
            )

        self._image_meta = IMAGE_API.get(
            context, image_id, include_locations=True
        )
        glance_image.require_usable(self._image_meta)
        if glance_image.verified_with(self._trusted_certs):
            raise unacceptable("its signature is to be verified: fetch it")
        if found := glance_image.location_here(self._image_meta):
            self._clone(*found, image_id)
            return
        disk_format = self._image_meta.get("disk_format")
        if disk_format not in glance_image.CLONEABLE_FORMATS:
            raise unacceptable("it is not raw or ISO")
        if glance_bytes := self._image_meta.get("size"):
            self._verify_size(glance_bytes)
        if (
            copy_to_store
            and CONF.libvirt.images_rbd_glance_store_name
            and not self._base_exists()
        ):
            self._nova_image.copy_to_store(context, self._image_meta)
            self.clone(context, image_id, copy_to_store=False)
            return
        raise unacceptable(
            "none of its locations is in the cluster of pool "
            f"{self._disk.pool}, visible and readable as "
            f"{edge.settings().user}"
        )

    def _base_exists(self) -> bool:
        # If so Glance could not copy the image before, and is not asked again
        # at each boot.
        wanted = glance_image.base_of_image(
            self._image_meta, self._trusted_certs
        )
        return bases.BaseImages(self._disk.place.pool).find(wanted) is not None

    def _clone(self, url: str, found_bytes: int, image_id: str) -> None:
        self._verify_size(found_bytes)
        pool, disk = self._disk.place.pool, self._disk.image
        size, facts = self._size_bytes, self._metadata(image_id)
        location = names.GlanceLocation.parse(url)
        limit = edge.settings().clone_depth_hard_limit
        copies = edge.run(lambda: provision.is_deep(pool, location, limit))
        parent: names.GlanceLocation | names.SnapPath = location
        passphrase = self._passphrase()
        if passphrase is not None:
            base = bases.BaseImages(pool).ensure_for_encrypted(
                location.snap_path
            )
            parent = bases_.snap(pool, base.name)
        made = edge.run(
            lambda: provision.clone_disk(
                *(pool, disk, parent, size, facts),
                flatten=copies,
                passphrase=passphrase,
            ),
            long=copies,
        )
        self._log("Cloned", made, f"image {image_id}")
