# SPDX-License-Identifier: Apache-2.0

"""One pool: its images, open or not, and its own objects."""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import rbd

from nova_rbd_backend import errors, notices, threads
from nova_rbd_backend.ceph import clock, layouts
from nova_rbd_backend.ceph.access import Access
from nova_rbd_backend.ceph.cluster import Cluster
from nova_rbd_backend.ceph.connection import Connection
from nova_rbd_backend.ceph.directory import Directory
from nova_rbd_backend.ceph.headers import Headers
from nova_rbd_backend.ceph.holders import Holders, Lock
from nova_rbd_backend.ceph.image import Image
from nova_rbd_backend.ceph.lock_wait import LockWaits
from nova_rbd_backend.ceph.objects import Objects
from nova_rbd_backend.ceph.trash import Trash
from nova_rbd_backend.image_options import (
    CONF_KEY,
    NO_OPTIONS,
    ImageOptions,
    Striping,
    with_needed,
)

# More parents than any image of ours has; a broken chain might be endless.
_MOST_PARENTS = 64
_DEFAULT_FEATURES = "rbd_default_features"
# Without a pause, librbd crashed within 200 opens on a machine with four busy
# processes per core (MALLOC_PERTURB_). With 1 ms, not in 1,500 opens.
_OPENING_SECONDS = 0.005


class Pool:
    """A pool (and namespace) of a cluster. All calls block.

    Making a Pool opens nothing.

    :ivar options: what new images get
    """

    #: The key of the pool's own default of features, in its metadata.
    DEFAULT_FEATURES = f"{CONF_KEY}{_DEFAULT_FEATURES}"

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        namespace: str = "",
        options: ImageOptions = NO_OPTIONS,
    ):
        self.cluster = cluster
        self.name = name
        self.namespace = namespace
        self.options = options
        self._access = Access(cluster, name, namespace)
        self.objects = Objects(self._access)
        self.directory = Directory(self._access, self.objects)
        self.headers = Headers(self._access, self.objects)
        self.holders = Holders(self._access, self.objects)
        self._lock_waits = LockWaits(
            self._access, self.holders, self.directory, self._parents_locks
        )
        self.trash = Trash(
            self._access, self.objects, self.directory, self._lock_waits
        )

    def __str__(self) -> str:
        return str(self._access)

    def beside(self, name: str, namespace: str = "") -> "Pool":
        """Return another pool of the same cluster, without options."""
        return Pool(self.cluster, name, namespace)

    def clocks(self) -> clock.Clocks:
        """Read this host's clock and the cluster's; see clock.read."""
        return clock.read(self._access)

    def for_image_in_use(self) -> "Pool":
        """Return this pool over a connection of its own.

        For short changes of an image that a guest may have open: if the guest
        keeps the image's lock, this connection is given up, and not the one
        over which other images are being filled.
        """
        cluster = self.cluster.for_images_in_use
        return Pool(cluster, self.name, self.namespace, self.options)

    # making images

    def create(self, name: str, size_bytes: int) -> None:
        """Make an empty image, with the pool's options. librbd: rbd_create4.

        :raises ImageExists: the name is taken
        """
        arguments = self._arguments(self.options.striping)
        with self._access.reach("create", image=name) as ioctx:
            rbd.RBD().create(
                ioctx, name, size_bytes, old_format=False, **arguments
            )

    def clone(
        self,
        parent_pool: "Pool",
        parent_image: str,
        parent_snap: str,
        name: str,
    ) -> None:
        """Make a copy-on-write clone of a snap. librbd: rbd_clone4.

        The clone gets the pool's options and its parent's metadata. It is
        never striped finer than its parent.

        :raises ImageExists: the name is taken
        :raises ImageNotFound: there is no such parent
        :raises SnapNotFound: the parent has no such snap
        """
        connection = self.cluster.connection()
        arguments = self._arguments(
            self._striping_of_clone(parent_pool, parent_image)
        )
        try:
            with (
                parent_pool._access.reach(
                    "open the pool of", connection=connection
                ) as parent_ioctx,
                self._access.reach(
                    "clone", image=name, connection=connection
                ) as ioctx,
            ):
                rbd.RBD().clone(
                    parent_ioctx,
                    parent_image,
                    parent_snap,
                    ioctx,
                    name,
                    **arguments,
                )
        except errors.ImageNotFound as error:
            missing = (
                errors.SnapNotFound
                if parent_pool.directory.exists(parent_image)
                else errors.ImageNotFound
            )
            raise missing(
                f"wanted as parent of {self}/{name}",
                operation="clone",
                pool=str(parent_pool),
                image=parent_image,
                snap=parent_snap,
            ) from error

    def _striping_of_clone(
        self, parent_pool: "Pool", parent_image: str
    ) -> Striping | None:
        """Return how to stripe a clone; None: as Ceph does by default.

        Sends no request in the latter case.
        """
        wanted = self.options.striping
        if wanted is None:
            return None
        image_id = parent_pool.directory.image_id(parent_image)
        if image_id is None:
            return wanted
        try:
            found = parent_pool.headers.striping(image_id)
        except errors.ImageNotFound:
            return wanted  # clone() then says by its name what is gone
        given = wanted.not_finer_than(found)
        if given != wanted:
            pools = (str(self), self.options.group, str(parent_pool))
            notices.note(notices.Coarser(*pools, wanted, found, given))
        return given

    def _arguments(self, striping: Striping | None) -> dict[str, Any]:
        """Arguments of rbd_create4 and rbd_clone4; None is Ceph's choice.

        Not for the features: librbd gives a clone those of its parent, and an
        image that was uploaded long ago may lack exclusive-lock (16.2).
        """
        return {
            "data_pool": self.options.data_pool,
            "features": self.options.feature_bits or self._default_features(),
            "order": striping.order if striping else None,
            "stripe_unit": striping.stripe_unit_bytes if striping else None,
            "stripe_count": striping.stripe_count if striping else None,
        }

    def _default_features(self) -> int:
        """Return the bits of Ceph's default for this pool, and those we need.

        Like librbd, reads the pool's own default first (``rbd config pool``).
        librados: rados_conf_get.
        """
        of_pool = self.default_features_of_pool()
        if of_pool is not None:
            return with_needed(of_pool)
        handle = self.cluster.connection().handle
        return with_needed(handle.conf_get(_DEFAULT_FEATURES) or "")

    def default_features_of_pool(self) -> str | None:
        """Return the pool's own default of features; None: Ceph's.

        The omap of rbd_info has an entry for each option (cls_rbd.cc, 16.2).
        """
        key = layouts.metadata_key(self.DEFAULT_FEATURES)
        found = self.objects.omap_value(layouts.POOL_INFO, key)
        return None if found is None else found.decode()

    @contextlib.contextmanager
    def open(
        self,
        name: str | None = None,
        snap: str | None = None,
        read_only: bool = True,
        image_id: str | None = None,
        frees: bool = False,
    ) -> Iterator[Image]:
        """Open an image by name, or by id (also in the trash).

        librbd: rbd_open, rbd_open_read_only, rbd_open_by_id.

        :param name: with an id, only for messages
        :param frees: for removing snaps in a full pool; other writes fail
        :raises ImageNotFound: there is no such image
        :raises SnapNotFound: the image has no such snap
        """
        shown = name or str(image_id)
        connection = self.cluster.connection()
        with self._access.reach(
            "open", image=shown, connection=connection, frees=frees
        ) as ioctx:
            handle = rbd.Image(
                ioctx,
                name=name if image_id is None else None,
                read_only=read_only,
                image_id=image_id,
            )
        limited = functools.partial(
            self._lock_waits.limited,
            connection=connection,
            image=name,
            image_id=image_id,
        )
        image = Image(self._access, connection, handle, shown, limited)
        try:
            if snap is not None:
                image.show_snap(snap)
            yield image
        except BaseException:
            # The error of the block says more than an error of close().
            with contextlib.suppress(Exception):
                self._close(handle, connection, shown, read_only)
            raise
        self._close(handle, connection, shown, read_only)

    def _close(
        self,
        handle: rbd.Image,
        connection: Connection,
        image: str,
        read_only: bool,
    ) -> None:
        """Close an image, but not while librbd still opens it.

        The thread of librbd that has opened an image goes on to use it for a
        moment (ImageState::complete_action_unlock, 16.2 to 20.2). The close of
        an image that is open for writing sends a request first. Any other one
        would free the image under that thread, which may end the process.

        librbd: rbd_close, which reports no time-out. While OSDs were silent,
        it once went on until they answered (16.2.15).

        :raises OperationTimedOut: the image may have kept its lock; the
            connection is dropped for that, see Cluster.reach
        """
        if read_only:
            threads.native_sleep(_OPENING_SECONDS)
        with self._access.reach("close", image=image, connection=connection):
            connection.limited(handle.close)

    def publish(
        self,
        draft: str,
        image_id: str,
        name: str,
        has_journal: bool | None = None,
    ) -> None:
        """Give a closed image its name; see Directory.publish.

        The name of an image with a journal is recorded there for its copies.

        :param has_journal: None: ask the cluster
        :raises ImageExists: the name is taken
        :raises TakenOver: the draft has been removed meanwhile
        """
        if has_journal is None:
            has_journal = self.headers.has_journal(image_id)
        if has_journal:
            self._publish_recorded(draft, image_id, name)
        else:
            self.directory.publish(draft, image_id, name)

    def _publish_recorded(self, draft: str, image_id: str, name: str) -> None:
        if self.directory.image_id(name) == image_id:
            # librbd, which would refuse the name now, was interrupted after it
            # had recorded the new name.
            self.directory.publish(draft, image_id, name)
            return
        try:
            # The draft's lock may be kept by a client that hangs. Other images
            # are being filled over this connection.
            self.for_image_in_use().rename(draft, name)
        except errors.UNREACHED:
            raise
        except errors.StorageError as error:
            if not self.directory.free_unlisted(name, image_id):
                return  # another process has finished it
            if not isinstance(error, errors.ImageNotFound | errors.Conflict):
                raise
            raise errors.TakenOver(
                "the draft is gone",
                operation="create",
                pool=str(self),
                image=name,
            ) from error

    def restore_id(self, name: str) -> str | None:
        """Have a listed image found by its name again; see Trash.move.

        :returns: its id; None: the image is gone or in the trash, or another
            one gets the name
        """
        image_id = self.directory.listed_id(name)
        # librbd puts an image into the trash before it takes its name away.
        if image_id is None or self.trash.get(image_id) is not None:
            return None
        with contextlib.suppress(errors.ImageNotFound, errors.ImageExists):
            self.headers.size_bytes(image_id)
            self.directory.set_id(name, image_id)
            return image_id
        return None

    def rename(self, name: str, new_name: str) -> None:
        """Rename an image, and record that in its journal.

        If another client keeps the image's lock, this connection is given up.

        librbd: rbd_rename. If it fails, it may have taken the new name.

        :raises ImageNotFound, Conflict: the image has another name now
        :raises DiskBusy: the owner of its lock does not release it
        """
        connection = self.cluster.connection()
        with (
            self._lock_waits.limited("name", connection, name),
            self._access.reach(
                "name", image=new_name, connection=connection
            ) as ioctx,
        ):
            rbd.RBD().rename(ioctx, name, new_name)

    def set_metadata(
        self,
        image_id: str,
        values: Mapping[str, str],
        conf: Mapping[str, str] | None = None,
        has_journal: bool | None = None,
    ) -> None:
        """Set metadata of an image; other keys stay.

        This takes 1 ms for all keys, rbd_metadata_set 3 ms for each, which is
        therefore for images with a journal only.

        :param conf: librbd's options, which are metadata too. They replace
            the options that the image has from its parent. None: those stay
        :param has_journal: None: ask the cluster
        :raises ImageNotFound: there is no such image
        """
        removed: set[str] = set()
        if conf is not None:
            inherited = self.headers.metadata(image_id, CONF_KEY)
            removed = inherited.keys() - conf.keys()
            values = {**values, **conf}
        if has_journal is None:
            has_journal = self.headers.has_journal(image_id)
        if has_journal:
            with self.open(image_id=image_id, read_only=False) as image:
                image.set_metadata(values, removed)
        else:
            self.headers.set_metadata(image_id, values, removed)

    def snap_size_bytes(self, image: str, snap: str) -> int:
        """Return the size of an image's snap without opening the image.

        :raises ImageNotFound: there is no such image
        :raises SnapNotFound: the image has no such snap
        """
        image_id = self.directory.existing_id(image, "get the size")
        return self.headers.snap_size_bytes(image_id, snap)

    def parent_of(self, image_id: str) -> tuple["Pool", str] | None:
        """Return pool and id of an image's parent; None: it has no parent.

        :raises ImageNotFound: there is no such image
        """
        found = self.headers.parent_id(image_id)
        if found is None:
            return None
        pool_id, namespace, parent = found
        return self.beside(self.cluster.pool_name(pool_id), namespace), parent

    def clones(self, image_id: str) -> Iterator[tuple["Pool", str]]:
        """Yield pool and id of each clone, also of those in the trash.

        rbd_list_children3 would list all pools that have a clone, and their
        trash, and would fail if a clone is removed meanwhile (16.2).
        """
        pools: dict[tuple[int, str], Pool] = {}
        for pool_id, namespace, clone in self.headers.clone_ids(image_id):
            where = pool_id, namespace
            if where not in pools:
                name = self.cluster.pool_name(pool_id)
                pools[where] = self.beside(name, namespace)
            yield pools[where], clone

    def _parents_locks(self, image_id: str) -> tuple[Lock, ...]:
        parent = self.parent_of(image_id)
        return () if parent is None else parent[0].holders.locks(parent[1])

    def depth(self, image_id: str) -> int:
        """Count the parents above an image; 0 if it is not a clone.

        Each parent slows opening down, and reading data that the guest never
        wrote. Stops at a parent that our user may not read.
        """
        count, at = 0, (self, image_id)
        with contextlib.suppress(errors.NotPermitted, errors.NotFound):
            while count < _MOST_PARENTS:
                pool, current = at
                parent = pool.parent_of(current)
                if parent is None:
                    break
                count, at = count + 1, parent
        return count

    # removing images

    def remove(self, name: str) -> None:
        """Remove an image at once, whole or half made, if it exists.

        librbd: rbd_remove.

        :raises DiskBusy: a client has it open
        :raises HasSnaps: it has snaps
        """
        connection = self.cluster.connection()
        with (
            contextlib.suppress(errors.ImageNotFound),
            self._lock_waits.limited("remove", connection, name),
            self._access.reach(
                "remove", image=name, connection=connection, frees=True
            ) as ioctx,
        ):
            rbd.RBD().remove(ioctx, name)

    def remove_unlisted(self, name: str) -> None:
        """Remove the remains of a name that the directory does not list.

        A process died in rbd_create or in publish. If the image has another
        name, or is in the trash, only its rbd_id object is removed.
        """
        image_id = self.directory.image_id(name)
        if image_id is None:
            return
        if (
            self.directory.listed_name(image_id) is not None
            or self.trash.get(image_id) is not None
        ):
            self.directory.remove_id(name, image_id)
        else:
            self.remove(name)
