# SPDX-License-Identifier: Apache-2.0

"""Keep in mind which entries of the journals this process has to look at.

So it need not list the entries of all hosts. If the process dies, the next one
of its host finds its entries, and so does the host that has the turn.
"""

import os

from nova_rbd_backend import threads
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.settings import ClusterSettings

_Place = tuple[ClusterSettings, str]


class _Here:
    """What this process knows.

    :ivar keys: of the entries, by cluster and pool
    :ivar searched: cluster, pool, and kind of entries
    """

    def __init__(self) -> None:
        self.lock = threads.original_threading().Lock()
        self.keys: dict[_Place, set[str]] = {}
        self.searched: set[tuple[_Place, str]] = set()

    def after_fork(self) -> None:
        """Forget the parent's work in the child."""
        self.lock = threads.original_threading().Lock()
        self.keys.clear()
        self.searched.clear()


_HERE = _Here()
os.register_at_fork(after_in_child=_HERE.after_fork)


def note(pool: Pool, key: str) -> None:
    """Have this process look at an entry soon."""
    with _HERE.lock:
        _HERE.keys.setdefault(_place(pool), set()).add(key)


def take(pool: Pool, key: str) -> bool:
    """Undo note; return whether the entry was noted."""
    with _HERE.lock:
        noted = _HERE.keys.get(_place(pool), set())
        was_noted = key in noted
        noted.discard(key)
    return was_noted


def keys(pool: Pool, prefix: str) -> list[str]:
    """Return the keys of the noted entries of one kind."""
    with _HERE.lock:
        noted = _HERE.keys.get(_place(pool), ())
        return [key for key in noted if key.startswith(prefix)]


def is_searched(pool: Pool, prefix: str) -> bool:
    """Return whether dead processes' entries of this kind were looked for."""
    return (_place(pool), prefix) in _HERE.searched


def record_searched(pool: Pool, prefix: str) -> None:
    """Record that those of this host's dead processes are noted."""
    _HERE.searched.add((_place(pool), prefix))


def _place(pool: Pool) -> _Place:
    return pool.cluster.settings, str(pool)
