# SPDX-License-Identifier: Apache-2.0

"""Where files lie on this host on their way into the pool, and no longer."""

import contextlib
import glob
import os
import shutil
import uuid
from collections.abc import Iterator

import nova.conf
from oslo_log import log as logging
from oslo_utils import fileutils

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)
FOLDER = "nova-rbd-staging"


@contextlib.contextmanager
def file(name: str) -> Iterator[str]:
    """Lend the path of a file that is not there, and remove all it becomes.

    Nova puts ``.part`` and ``.converted`` behind it meanwhile.
    """
    fileutils.ensure_tree(_folder())
    path = os.path.join(_folder(), f"{name}.{uuid.uuid4().hex[:12]}")
    try:
        yield path
    finally:
        for found in glob.glob(f"{glob.escape(path)}*"):
            fileutils.delete_if_exists(found)


def clear() -> None:
    """Remove what a nova-compute of this host left when it was killed."""
    if not os.path.isdir(_folder()):
        return
    if left := os.listdir(_folder()):
        LOG.info("Removing %s from %s", ", ".join(left), _folder())
    shutil.rmtree(_folder())


def _folder() -> str:
    # The instances' folder may be one that several hosts share.
    return os.path.join(CONF.instances_path, FOLDER, CONF.host)
