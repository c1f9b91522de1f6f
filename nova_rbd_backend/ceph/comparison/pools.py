# SPDX-License-Identifier: Apache-2.0

"""Compare what Ceph keeps for a whole pool."""

from typing import Any

import rbd

from nova_rbd_backend.ceph.comparison.same import same_soon
from nova_rbd_backend.ceph.pool import Pool


def compare(pool: Pool) -> None:
    """Compare what is kept for the whole pool, if there is any."""
    key = pool.DEFAULT_FEATURES

    def namespaces() -> Any:
        return sorted(rbd.RBD().namespace_list(ioctx))

    def default() -> Any:
        return dict(rbd.RBD().pool_metadata_list(ioctx)).get(key)

    def is_mirrored() -> bool:
        mirrored = _a_mirrored_image(ioctx)
        return mirrored is None or pool.holders.is_mirrored(mirrored)

    with pool._access.reach("compare") as ioctx:
        same_soon(
            "namespaces of a pool (rbd_namespace)",
            lambda: sorted(pool.directory.namespaces()),
            namespaces,
        )
        same_soon(
            "options of a pool (rbd_info)",
            pool.default_features_of_pool,
            default,
        )
        same_soon("mirrored images (rbd_mirroring)", is_mirrored, lambda: True)


def _a_mirrored_image(ioctx: Any) -> str | None:
    librbd = rbd.RBD()
    if librbd.mirror_mode_get(ioctx) == rbd.RBD_MIRROR_MODE_DISABLED:
        return None
    entries = librbd.mirror_image_info_list(ioctx)
    return next((image_id for image_id, _ in entries), None)
