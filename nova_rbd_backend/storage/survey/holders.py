# SPDX-License-Identifier: Apache-2.0

"""Flow: list the clients that hold disks, and whether they are alive.

Changes nothing. Judges like fencing: a client that twice gives no sign of life
is dead.
"""

import dataclasses
import enum
from collections.abc import Mapping

from nova_rbd_backend.ceph.holders import Client
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import fencing

# A round is repeated if a client changes meanwhile; that rarely happens twice.
_ROUNDS = 3


class Liveness(enum.StrEnum):
    """The state of a client; UNCLEAR: one of several clients is silent."""

    ALIVE = "alive"
    DEAD = "dead"
    UNCLEAR = "unclear"
    MIRROR = "rbd-mirror"


@dataclasses.dataclass(frozen=True)
class Holder:
    """A client that has a disk open for writing, or died with it."""

    image: str
    client_id: int
    address: str  # as ``ceph osd blocklist`` takes it
    owns_lock: bool
    state: Liveness

    def __str__(self) -> str:
        lock = ", owns the lock" if self.owns_lock else ""
        return f"client.{self.client_id} {self.address}: {self.state}{lock}"


def holders_of(pool: Pool, images: Mapping[str, str]) -> list[Holder]:
    """Return the clients that hold these images.

    Blocks for 2 s if one of the clients is dead.

    :param images: name -> id
    """
    found: dict[str, list[Holder]] = {}
    again = images
    for _ in range(_ROUNDS):
        found |= _found(pool, again)
        # A client may come, or its watch may lapse, during a round.
        again = {
            name: images[name]
            for name, held in found.items()
            if any(each.state is Liveness.UNCLEAR for each in held)
        }
        if not again:
            break
    return [holder for held in found.values() for holder in held]


def _found(pool: Pool, images: Mapping[str, str]) -> dict[str, list[Holder]]:
    found: dict[str, list[Holder]] = {name: [] for name in images}
    verdicts = fencing.verdicts(pool, images)
    if not verdicts:
        return found
    mirrors = pool.holders.ask_mirrors(fencing.ANSWER_SECONDS).awake
    own_id = pool.cluster.client_id()
    for name, verdict in verdicts.items():
        for client in fencing.clients(pool, images[name]):
            if client.client_id == own_id:
                continue
            state = _state(client, verdict)
            if client.client_id in mirrors:
                state = Liveness.MIRROR
            owns_lock = client.lock_cookie is not None
            found[name].append(
                Holder(
                    name, client.client_id, client.address, owns_lock, state
                )
            )
    return found


def _state(client: Client, verdict: fencing.Verdict) -> Liveness:
    if client in verdict.dead:
        return Liveness.DEAD
    alive = verdict.alive and client.watches and not verdict.unclear
    return Liveness.ALIVE if alive else Liveness.UNCLEAR
