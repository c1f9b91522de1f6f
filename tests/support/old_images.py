# SPDX-License-Identifier: Apache-2.0

import struct
import time

import rados

from nova_rbd_backend.ceph.pool import Pool

_TIMES = tuple(f"{each}_timestamp" for each in ("create", "access", "modify"))


def make_old(pool: Pool, image_id: str, seconds: float) -> None:
    """Turn back all times in an image's header, to so long ago."""
    value = struct.pack("<II", int(time.time() - seconds), 0)
    connection = pool.cluster.connection()
    ioctx = connection.ioctx(pool.name, pool.namespace)
    with rados.WriteOpCtx() as op:
        ioctx.set_omap(op, _TIMES, (value,) * len(_TIMES))
        ioctx.operate_write_op(op, f"rbd_header.{image_id}")
