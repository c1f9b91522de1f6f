# SPDX-License-Identifier: Apache-2.0

"""How a clone of a parent is striped, when the operator says how disks are."""

import collections
import dataclasses
from typing import TYPE_CHECKING

from nova_rbd_backend import errors
from nova_rbd_backend.image_options import Striping

if TYPE_CHECKING:
    from nova_rbd_backend.storage.pool import Pool


@dataclasses.dataclass(frozen=True)
class Coarser:
    """Clones that are not striped as they should be, because of a parent.

    :ivar pool: theirs
    :ivar group: of nova.conf, which says what is wanted
    """

    pool: str
    group: str
    parent_pool: str
    wanted: Striping
    parent: Striping
    given: Striping


#: Facts for the operator, once each: a flow above logs and removes them.
untold: collections.deque[Coarser] = collections.deque()
_known: set[Coarser] = set()


def of_clone(
    pool: "Pool", parent_pool: "Pool", parent: str
) -> Striping | None:
    """The striping of a clone; None: it is left to Ceph.

    Opens nothing, and asks nothing of the cluster when it is left to Ceph. No
    such parent: what is wanted.
    """
    wanted = pool.options.striping
    if wanted is None:
        return None
    image_id = parent_pool.image_id(parent)
    if image_id is None:
        return wanted
    try:
        found = parent_pool.striping(image_id)
    except errors.ImageNotFound:
        return wanted
    given = wanted.not_finer_than(found)
    if given != wanted:
        fact = Coarser(
            str(pool),
            pool.options.group,
            str(parent_pool),
            wanted,
            found,
            given,
        )
        if fact not in _known:
            _known.add(fact)
            untold.append(fact)
    return given
