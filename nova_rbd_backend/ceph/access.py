# SPDX-License-Identifier: Apache-2.0

"""Lend the ioctx of one pool, and name the pool in every error."""

import contextlib
from collections.abc import Iterator

import rados

from nova_rbd_backend.ceph.cluster import Cluster
from nova_rbd_backend.ceph.connection import Connection

# rados_exec fails with ERANGE if the answer is longer than the buffer that it
# is given. python-rados gives 8 KiB, which the ids of 1023 snaps exceed.
_LONGEST_ANSWER_BYTES = 256 << 10


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

        librados: rados_exec.

        :param key: the object's name
        :param method: the class and its method
        """
        with self.reach(operation, image=image, frees=frees) as ioctx:
            _, answer = ioctx.execute(
                key, *method, request, _LONGEST_ANSWER_BYTES
            )
        return answer
