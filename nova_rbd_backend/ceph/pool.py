# SPDX-License-Identifier: Apache-2.0

"""One pool: its images, opened or not, and its own objects."""

import contextlib
from collections.abc import Iterator
from typing import Any

import rbd

from nova_rbd_backend import errors, notices
from nova_rbd_backend.ceph.access import Access
from nova_rbd_backend.ceph.cluster import Cluster
from nova_rbd_backend.ceph.directory import Directory
from nova_rbd_backend.ceph.headers import Headers
from nova_rbd_backend.ceph.holders import Holders
from nova_rbd_backend.ceph.image import Image
from nova_rbd_backend.ceph.objects import Objects
from nova_rbd_backend.ceph.trash import Trash
from nova_rbd_backend.image_options import NO_OPTIONS, ImageOptions, Striping

# No chain of ours is so long; a broken one might be endless.
_MOST_PARENTS = 64


class Pool:
    """A pool (and namespace) of a cluster. Nothing is opened yet.

    All calls block.

    :ivar options: what new images get
    :ivar objects: the pool's own objects: omap entries and leases
    :ivar directory: names and ids of images
    :ivar headers: what is known of an image by its id
    :ivar holders: locks and watchers of images
    :ivar trash: the trashed images
    """

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
        self.trash = Trash(self._access, self.directory)

    def __str__(self) -> str:
        return str(self._access)

    def beside(self, name: str, namespace: str = "") -> "Pool":
        """Return another pool of the same cluster, without options."""
        return Pool(self.cluster, name, namespace)

    # making images

    def create(self, name: str, size_bytes: int) -> None:
        """Make an empty image, with the pool's options. librbd: rbd_create4.

        :raises ImageExists: the name is taken
        """
        with self._access.reach("create", image=name) as ioctx:
            rbd.RBD().create(
                ioctx,
                name,
                size_bytes,
                old_format=False,
                **_arguments(self.options, self.options.striping),
            )

    def clone(
        self,
        parent_pool: "Pool",
        parent_image: str,
        parent_snap: str,
        name: str,
    ) -> None:
        """Make a copy-on-write clone of a snap. librbd: rbd_clone4.

        The clone gets the pool's options, but is never striped finer than
        its parent, and its parent's metadata.

        :raises ImageExists: the name is taken
        :raises ImageNotFound: there is no such parent
        :raises SnapNotFound: the parent has no such snap
        """
        connection = self.cluster.connection()
        arguments = _arguments(
            self.options, self._striping_of_clone(parent_pool, parent_image)
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
        """Return how a clone is to be striped; None: it is left to Ceph.

        Asks the cluster nothing when it is left to Ceph.
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
            return wanted
        given = wanted.not_finer_than(found)
        if given != wanted:
            notices.note(
                notices.Coarser(
                    str(self),
                    self.options.group,
                    str(parent_pool),
                    wanted,
                    found,
                    given,
                )
            )
        return given

    # one image

    @contextlib.contextmanager
    def open(
        self,
        name: str | None = None,
        snap: str | None = None,
        read_only: bool = True,
        image_id: str | None = None,
        frees: bool = False,
    ) -> Iterator[Image]:
        """Open an image by name, or by id (in the trash too).

        librbd: rbd_open, rbd_open_read_only, rbd_open_by_id.

        :param frees: to remove snaps, in a full pool too; other writes fail
        :raises ImageNotFound: there is no such image
        :raises SnapNotFound: the image has no such snap
        """
        shown = name or image_id
        connection = self.cluster.connection()
        with self._access.reach(
            "open", image=shown, connection=connection, frees=frees
        ) as ioctx:
            handle = rbd.Image(
                ioctx, name=name, read_only=read_only, image_id=image_id
            )
        image = Image(
            self._access, self.headers, connection, handle, str(shown)
        )
        try:
            if snap is not None:
                image.show_snap(snap)
            yield image
        except BaseException:
            # The error within says more than one that follows from it.
            with contextlib.suppress(Exception):
                handle.close()
            raise
        with self._access.reach("close", image=shown, connection=connection):
            handle.close()

    def snap_size_bytes(self, image: str, snap: str) -> int:
        """Return the size of a snap, by the image's name, without opening it.

        :raises ImageNotFound: there is no such image
        :raises SnapNotFound: the image has no such snap
        """
        image_id = self.directory.image_id(image)
        if image_id is None:
            raise errors.ImageNotFound(
                operation="get the size", pool=str(self), image=image
            )
        return self.headers.snap_size_bytes(image_id, snap)

    def parent_of(self, image_id: str) -> tuple["Pool", str] | None:
        """Return pool and id of an image's parent, without opening it.

        :returns: None: it is no clone
        :raises ImageNotFound: there is no such image
        """
        found = self.headers.parent_id(image_id)
        if found is None:
            return None
        pool_id, namespace, parent = found
        return self.beside(self.cluster.pool_name(pool_id), namespace), parent

    def depth(self, image_id: str) -> int:
        """Count the parents above an image; 0: it is no clone.

        Each makes opening slower, and reading what the guest never wrote. A
        parent that the user may not read is not counted, nor what is above
        it.
        """
        count = 0
        at, current = self, image_id
        while count < _MOST_PARENTS:
            try:
                parent = at.parent_of(current)
            except (errors.NotPermitted, errors.NotFound):
                break
            if parent is None:
                break
            at, current = parent
            count += 1
        return count

    # removing images

    def remove(self, name: str) -> None:
        """Remove an image at once, half made or whole. Gone already: done.

        librbd: rbd_remove.

        :raises DiskBusy: a client has it open
        :raises HasSnaps: it has snaps
        """
        with (
            contextlib.suppress(errors.ImageNotFound),
            self._access.reach("remove", image=name, frees=True) as ioctx,
        ):
            rbd.RBD().remove(ioctx, name)

    def remove_unlisted(self, name: str) -> None:
        """Remove what is left of a name that the directory does not list.

        A process died in rbd_create or in publish. If the image has another
        name, or is in the trash, the image stays: only this way to it goes.
        """
        image_id = self.directory.image_id(name)
        if image_id is None or self._has_a_place(image_id):
            self.directory.remove_id(name)
        else:
            self.remove(name)

    def _has_a_place(self, image_id: str) -> bool:
        listed = self.directory.listed_name(image_id) is not None
        return listed or self.trash.get(image_id) is not None


def _arguments(options: ImageOptions, how: Striping | None) -> dict[str, Any]:
    """Arguments of rbd_create4 and rbd_clone4; None is Ceph's choice."""
    return {
        "data_pool": options.data_pool,
        "features": options.feature_bits,
        "order": how.order if how else None,
        "stripe_unit": how.stripe_unit_bytes if how else None,
        "stripe_count": how.stripe_count if how else None,
    }
