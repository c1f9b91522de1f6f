# SPDX-License-Identifier: Apache-2.0

"""How many parents an image has, one above the other.

Each makes reading what the guest never wrote slower, and opening too. A
snapshot of a disk booted from a snapshot of a disk ... is detached in the
background; where that comes late the chain may not grow without end.
"""

from nova_rbd_backend import errors
from nova_rbd_backend.storage.pool import Pool

# No chain of ours is so long; a broken one might be endless.
_MOST = 64


def depth(pool: Pool, image_id: str) -> int:
    """Count the parents above an image; 0: it has none.

    What the user may not read is not counted, nor what is above that.
    """
    count = 0
    at, current = pool, image_id
    while count < _MOST:
        try:
            parent = at.parent_of(current)
        except (errors.NotPermitted, errors.NotFound):
            break
        if parent is None:
            break
        at, current = parent
        count += 1
    return count
