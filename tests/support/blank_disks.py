# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping

from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage.disks import provision


def blank_disk(
    pool: Pool,
    name: str,
    size_bytes: int,
    metadata: Mapping[str, str] | None = None,
) -> provision.Provisioned:
    """Make a whole disk with no data."""
    return provision.filled_disk(
        pool, name, size_bytes, lambda _draft: None, metadata
    )
