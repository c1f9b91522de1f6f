# SPDX-License-Identifier: Apache-2.0

"""RBDDriver under Nova's name, with the methods that Nova's own code calls.

Nova's own modules look up ``nova.storage.rbd_utils.RBDDriver`` when they call
it (migration.py:_update_rbd_xml, image/glance.py:rbd_download,
driver.py:unrescue; Nova 26 to 34). It is therefore enough to replace that one
attribute. Unlike Nova's class, this class has no connection of its own.
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

# One value for each request; eventlet makes it local to the greenlet.
_scope = threading.local()


@contextlib.contextmanager
def cleanup_scope(instance_uuid: str) -> Iterator[None]:
    """Tell cleanup_volumes() whose disks its filter can match.

    Nova gives cleanup_volumes() a filter for the names of a whole pool. Within
    this scope only the names of the instance's own disks are read.
    """
    _scope.instance_uuid = instance_uuid
    try:
        yield
    finally:
        del _scope.instance_uuid


class RBDDriver:
    """A pool, with the interface that Nova's own modules call."""

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
        """Return the monitors' hosts and ports, as the connection has them."""
        ceph = cluster.connect(self._cluster)
        found = edge.run(ceph.mon_addresses)
        hosts = [mon.host for mon in found]
        if not strip_brackets:
            hosts = [f"[{host}]" if ":" in host else host for host in hosts]
        return hosts, [str(mon.port) for mon in found]

    def get_pool_info(self) -> dict[str, int]:
        """Return the space of the pool, always in the cluster of nova.conf."""
        of_class = edge.settings().class_of_pool(self.pool)
        return placement.space_bytes(self.pool, of_class)

    def export_image(
        self, base: str, name: str, snap: str, pool: str | None = None
    ) -> None:
        """Write the snap's allocated data into the local file ``base``."""

        def export() -> None:
            if pool is not None:  # a location that Glance gave
                parent.refuse_foreign(pool, name, image_id=None)
            at = Pool(cluster.connect(self._cluster), pool or self.pool)
            with at.open(name, snap=snap) as image:
                transfer.export(image, base)

        edge.run(export, long=True)

    def cleanup_volumes(self, filter_fn: Callable[[str], bool]) -> None:
        """Delete the disks whose names pass the filter.

        Outside of :func:`cleanup_scope` the instance is not known, and the
        call is refused: it would have to read every name of the pool, which
        takes longer as the pool grows. Nova cannot repeat the rest of an
        unrescue. A disk that cannot be deleted is therefore left to the next
        rescue or delete.
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
                "Rescue disks of instance %s stay in Ceph: %s",
                instance_uuid,
                error,
            )
