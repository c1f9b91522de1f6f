# SPDX-License-Identifier: Apache-2.0

"""Does this Ceph keep its objects as this backend reads and writes them?

This is compared on the image that the check of rights makes anyway, with a
clone of it; see ceph.comparison.
"""

import contextlib

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.comparison import run as comparison
from nova_rbd_backend.ceph.image import Image
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.checks.steps import Step


class Layouts:
    """The comparison of layouts, and the check that reports it.

    :param rights: the name of the check of rights that calls compare()
    """

    def __init__(self, pool: Pool, rights: str):
        self._pool = pool
        self._rights = rights
        self._is_compared = False
        self.difference: errors.LayoutDiffers | None = None

    def compare(self, disk: Image, snap: str) -> None:
        """Compare on an image; keep what differs for the report. Blocks.

        Nothing is left but the image, unless something differs so much that
        the clone cannot be removed.

        :param disk: as comparison.compare() needs it
        """
        try:
            comparison.compare(self._pool, disk, snap)
            self._is_compared = True
        except BaseException as error:
            with contextlib.suppress(Exception):
                comparison.remove_clone(self._pool, disk)
            if not isinstance(error, errors.LayoutDiffers):
                raise
            self.difference = error

    @property
    def step(self) -> Step:
        return Step("layouts of Ceph's objects", self._report, (self._rights,))

    def _report(self) -> str | None:
        if self.difference is not None:
            raise errors.ConfigError(
                f"{_releases(self._pool)} keeps something in another way than "
                "this release of nova_rbd_backend, which could lose disks: "
                f"{self.difference.reason}: install a release of it that "
                "knows this Ceph, or go back to the former Ceph"
            ) from self.difference
        if not self._is_compared:
            return f"not compared, as the {self._rights} were not tried"
        return None


def _releases(pool: Pool) -> str:
    try:
        releases = " and ".join(pool.cluster.releases())
    except errors.StorageError:
        releases = "of unknown release"
    return f"Ceph {releases} (librbd {comparison.librbd_version()} here)"
