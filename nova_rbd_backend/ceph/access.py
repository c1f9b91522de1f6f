# SPDX-License-Identifier: Apache-2.0

"""Lend the ioctx of one pool, and name the pool in every error."""

import contextlib
from collections.abc import Iterator

import rados

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.cluster import Cluster
from nova_rbd_backend.ceph.connection import Connection

# rados_exec fails with ERANGE if the answer is longer than the buffer that it
# is given, after the OSD has done the call. Only reads have answers. The ids
# of 1023 snaps, or 50 shared locks, take more than the first of these.
_BUFFERS_BYTES = (8 << 10, 256 << 10, 32 << 20)


class Access:
    """A pool (and namespace) of a cluster, for the classes behind Pool."""

    def __init__(self, cluster: Cluster, pool: str, namespace: str = ""):
        self.cluster = cluster
        self.pool = pool
        self.namespace = namespace

    def __str__(self) -> str:
        return "/".join(part for part in (self.pool, self.namespace) if part)

    @contextlib.contextmanager
    def reach(
        self,
        operation: str,
        image: str | None = None,
        kind: str = "",
        connection: Connection | None = None,
        frees: bool = False,
    ) -> Iterator[rados.Ioctx]:
        """Lend the pool's ioctx; errors within name the pool and the image.

        :param kind: see error_map.translated
        :param connection: None: the current one
        :param frees: see Connection.ioctx
        """
        connection = connection or self.cluster.connection()
        key = (self.pool, self.namespace, frees)
        ioctx = connection.open_ioctxs.get(key)
        if ioctx is None:
            with self.cluster.reach(operation, connection, pool=self.pool):
                ioctx = connection.ioctx(*key)
        with self.cluster.reach(
            operation, connection, pool=str(self), image=image, kind=kind
        ):
            yield ioctx

    def execute(
        self,
        operation: str,
        image: str,
        key: str,
        method: tuple[str, str],
        request: bytes = b"",
        frees: bool = False,
    ) -> bytes:
        """Call a method of an object class on an object of an image.

        A read whose answer is long is repeated with a larger buffer.
        librados: rados_exec.

        :param key: the object's name
        :param method: the class and its method
        """

        def executed(buffer_bytes: int) -> bytes:
            with self.reach(operation, image=image, frees=frees) as ioctx:
                return ioctx.execute(key, *method, request, buffer_bytes)[1]

        *smaller, largest = _BUFFERS_BYTES
        for buffer_bytes in smaller:
            with contextlib.suppress(errors.AnswerTooLong):
                return executed(buffer_bytes)
        return executed(largest)
