# SPDX-License-Identifier: Apache-2.0

"""Files on the local disk on their way into the pool."""

import contextlib
import dataclasses
import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from typing import Any

import nova.conf
from nova import exception
from oslo_log import log as logging
from oslo_utils import fileutils

from nova_rbd_backend import errors, threads
from nova_rbd_backend.storage.images.draft import Packed
from nova_rbd_backend.virt.boot.beside import Beside

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)
FOLDER = "nova-rbd-staging"


@dataclasses.dataclass
class StagedFile:
    """A file that Nova makes, and perhaps the image that it was fetched as.

    :ivar path: where Nova makes a raw file
    :ivar packed: the format of the image, if its conversion was put off. The
        raw file has the size of the disk, and only the first of its bytes.
    :ivar beside: takes the bytes of a raw image while they are fetched. If it
        was begun, the raw file has only the first of them.
    """

    path: str
    packed: Packed | None = None
    beside: Beside[Any] | None = None

    @property
    def packed_path(self) -> str:
        """The image as it was fetched, if its conversion was put off."""
        return self.path + ".packed"

    @property
    def data_path(self) -> str:
        """The file with the data."""
        return self.packed_path if self.packed else self.path

    @contextlib.contextmanager
    def refused_if_damaged(self, image_id: str | None) -> Iterator[None]:
        """Refuse a damaged image in the block as Nova does.

        :raises nova.exception.ImageUnacceptable: it cannot be converted
        """
        try:
            yield
        except errors.UnreadableFile as error:
            raise exception.ImageUnacceptable(
                image_id=image_id or "?",
                reason=f"Unable to convert image to raw: {error}",
            ) from error


# Nova hands on the path alone.
_staged: dict[str, StagedFile] = {}


@contextlib.contextmanager
def staged_file(name: str) -> Iterator[StagedFile]:
    """Lend a path for a file on its way into the pool; remove it afterwards.

    The file does not exist yet. Meanwhile Nova makes other files, with
    ``.part`` and ``.converted`` appended to the path.
    """
    folder = _folder()
    fileutils.ensure_tree(folder)
    path = os.path.join(folder, f"{name}.{uuid.uuid4().hex[:12]}")
    _staged[path] = StagedFile(path)
    try:
        yield _staged[path]
    finally:
        del _staged[path]
        for found in glob.glob(f"{glob.escape(path)}*"):
            # A file system may take long to free the blocks of gigabytes.
            threads.run(fileutils.delete_if_exists, found)


def at(path: str) -> StagedFile | None:
    """Return the file that staged_file() lends at this path, if any."""
    return _staged.get(path)


def clear_staged() -> None:
    """Remove the files that a killed nova-compute of this host has left."""
    folder = _folder()
    if not os.path.isdir(folder):
        return
    if left := os.listdir(folder):
        LOG.info("Removing %s from %s", ", ".join(left), folder)
    shutil.rmtree(folder)


def _folder() -> str:
    # Several hosts may share the instances' folder.
    return os.path.join(CONF.instances_path, FOLDER, CONF.host)
