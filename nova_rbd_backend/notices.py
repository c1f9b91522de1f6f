# SPDX-License-Identifier: Apache-2.0

"""Facts that an operator should read in the log, from where they are found.

Flows run in native threads, which may not log under eventlet, and a fact may
be found several calls deep in a flow that then fails. So a flow notes the
fact, and whoever runs the flow collects the notes and logs them.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator

from nova_rbd_backend.image_options import Striping


@dataclasses.dataclass(frozen=True)
class Fenced:
    """A dead client was put on Ceph's blocklist.

    :ivar lock_broken: the client had the image's exclusive lock
    :ivar blocklist_seconds: for how long the client cannot write
    """

    pool: str
    image: str
    client_id: int
    address: str
    lock_broken: bool
    blocklist_seconds: int


@dataclasses.dataclass(frozen=True)
class Coarser:
    """Clones are not striped as their pool's options ask, because of a parent.

    :ivar pool: the pool of the clones
    :ivar group: the group of nova.conf that has the options
    """

    pool: str
    group: str
    parent_pool: str
    wanted: Striping
    parent: Striping
    given: Striping


Notice = Fenced | Coarser

# One value for each thread, and for each greenlet.
_collected: contextvars.ContextVar[list[Notice] | None]
_collected = contextvars.ContextVar("nova_rbd_notices", default=None)


@contextlib.contextmanager
def collected(into: list[Notice] | None = None) -> Iterator[list[Notice]]:
    """Lend a list that gets what this thread notes within the block.

    :param into: the list to lend, for a caller that needs it after an error
    """
    found: list[Notice] = [] if into is None else into
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


def note(notice: Notice) -> None:
    """Add a fact to the innermost list; nobody collects: it is dropped."""
    found = _collected.get()
    if found is not None:
        found.append(notice)
