# SPDX-License-Identifier: Apache-2.0

"""Carry facts for the operator's log from the flows to the Nova edge.

Flows run in native threads, which may not log under eventlet, and a flow may
find a fact several calls deep, and fail after that. So a flow notes the fact,
and the code that runs the flow collects the notices and logs them.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator

from nova_rbd_backend.image_options import Striping


@dataclasses.dataclass(frozen=True)
class Fenced:
    """A dead client was put on Ceph's blocklist."""

    pool: str
    image: str
    client_id: int
    address: str
    lock_broken: bool  # the client had the image's exclusive lock
    blocklist_seconds: int  # how long the client cannot write


@dataclasses.dataclass(frozen=True)
class Coarser:
    """Clones cannot be striped as finely as their pool's options ask."""

    pool: str  # of the clones
    group: str  # the group of nova.conf with the options
    parent_pool: str
    wanted: Striping
    parent: Striping  # of the parent, which is the reason
    given: Striping


@dataclasses.dataclass(frozen=True)
class Lockless:
    """A disk had no exclusive-lock when its guest was to start."""

    pool: str
    image: str
    refusal: str | None  # why it could not be added; None: it was added


Notice = Fenced | Coarser | Lockless

# One value for each thread, and for each greenlet.
_collected: contextvars.ContextVar[list[Notice] | None]
_collected = contextvars.ContextVar("nova_rbd_notices", default=None)


@contextlib.contextmanager
def collected(into: list[Notice] | None = None) -> Iterator[list[Notice]]:
    """Lend a list of the facts that this thread notes within the block.

    :param into: the list to lend, for a caller that needs it after an error
    """
    found: list[Notice] = [] if into is None else into
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


def note(notice: Notice) -> None:
    """Add a fact to the innermost list; drop it if there is no list."""
    found = _collected.get()
    if found is not None:
        found.append(notice)
