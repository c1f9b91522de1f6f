# SPDX-License-Identifier: Apache-2.0

"""RBDDriver under Nova's name, with the methods that Nova's own code calls.

Nova's own modules look ``nova.storage.rbd_utils.RBDDriver`` up when they call
it (migration.py:_update_rbd_xml, image/glance.py:rbd_download,
driver.py:unrescue; Nova 26 to 34), so that rebinding the one attribute
reaches them all. Unlike Nova's it has no connection of its own.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator

from nova import exception
from oslo_log import log as logging

from nova_rbd_backend.ceph import cluster, transfer
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage.disks import parent
from nova_rbd_backend.virt import edge
from nova_rbd_backend.virt.pools import placement

LOG = logging.getLogger(__name__)

# One value for each request: green under eventlet, whose threading this is.
_scope = threading.local()


@contextlib.contextmanager
def cleanup_scope(instance_uuid: str) -> Iterator[None]:
    """Let cleanup_volumes() know whose disks its filter can match.

    Nova hands cleanup_volumes() a filter over the names of the whole pool;
    within this scope only the instance's own names are read.
    """
    _scope.instance_uuid = instance_uuid
    try:
        yield
    finally:
        del _scope.instance_uuid


class RBDDriver:
    """A pool of a cluster, as Nova's own modules ask for it."""

    def __init__(
        self,
        pool: str | None = None,
        user: str | None = None,
        ceph_conf: str | None = None,
        connect_timeout: int | None = None,
    ) -> None:
        ours = edge.settings()
        self.pool = pool or ours.pool
        self._cluster = dataclasses.replace(
            ours.cluster,
            conf_file=ceph_conf or ours.ceph_conf,
            user=user or ours.user,
            connect_timeout_seconds=connect_timeout
            or ours.connect_timeout_seconds,
        )

    def get_mon_addrs(
        self, strip_brackets: bool = True
    ) -> tuple[list[str], list[str]]:
        """Return hosts and ports of the monitors, from the live connection."""
        found = edge.run(
            lambda: cluster.connect(self._cluster).mon_addresses()
        )
        hosts = [
            f"[{mon.host}]"
            if ":" in mon.host and not strip_brackets
            else mon.host
            for mon in found
        ]
        return hosts, [str(mon.port) for mon in found]

    def get_pool_info(self) -> dict[str, int]:
        """Return the usable bytes of the pool: total, free and used."""
        of_class = edge.settings().class_of_pool(self.pool)
        return placement.space(self.pool, of_class)

    def export_image(
        self, base: str, name: str, snap: str, pool: str | None = None
    ) -> None:
        """Write the snap's allocated extents into the local file ``base``."""

        def export() -> None:
            if pool is not None:  # where Glance says that its image is
                parent.refuse_disk(pool, name)
            at = Pool(cluster.connect(self._cluster), pool or self.pool)
            with at.open(name, snap=snap) as image:
                transfer.export(image, base)

        edge.run(export, long=True)

    def cleanup_volumes(self, filter_fn: Callable[[str], bool]) -> None:
        """Delete the disks whose name the filter admits.

        Refused outside of :func:`cleanup_scope`, where nobody knows whose they
        are: reading every name of the pool would cost each delete more as the
        pool grows. Nova cannot repeat the rest of an unrescue, so that a disk
        which cannot be deleted stays for the next rescue or delete.
        """
        instance_uuid = getattr(_scope, "instance_uuid", None)
        if instance_uuid is None:
            raise NotImplementedError("cleanup_volumes() without an instance")
        store = edge.store()
        try:
            edge.run(
                lambda: store.delete(instance_uuid, filter_fn), waits=True
            )
        except exception.StorageError as error:
            LOG.warning(
                "Rescue disks of instance %(uuid)s stay in Ceph: %(error)s",
                {"uuid": instance_uuid, "error": error},
            )
