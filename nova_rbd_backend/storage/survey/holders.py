# SPDX-License-Identifier: Apache-2.0

"""Flow: who holds which disk, and are they alive? Changes nothing.

As fencing judges it: a client is asked for a sign of life, twice if it gives
none, and who gives none is dead.
"""

import dataclasses
import enum
from collections.abc import Mapping

from nova_rbd_backend.ceph.holders import Client
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import fencing

# For what changes while we look; two in a row are rare.
_ROUNDS = 3


class Liveness(enum.StrEnum):
    """What is known of a client; UNCLEAR: some of several are silent."""

    ALIVE = "alive"
    DEAD = "dead"
    UNCLEAR = "unclear"
    MIRROR = "rbd-mirror"


@dataclasses.dataclass(frozen=True)
class Holder:
    """A client that has a disk open for writing, or died with it.

    :ivar address: as ``ceph osd blocklist`` takes it
    :ivar owns_lock: it has the disk's exclusive lock
    """

    image: str
    client_id: int
    address: str
    owns_lock: bool
    state: Liveness

    def __str__(self) -> str:
        lock = ", owns the lock" if self.owns_lock else ""
        return f"client.{self.client_id} {self.address}: {self.state}{lock}"


def holders_of(pool: Pool, images: Mapping[str, str]) -> list[Holder]:
    """Who holds the images; 2 s when one of them is dead, else soon.

    :param images: name -> id
    """
    found: dict[str, list[Holder]] = {}
    again = images
    for _ in range(_ROUNDS):
        found |= _looked_at(pool, again)
        # A client may come, or its watch lapse, while it is asked for.
        again = {
            name: images[name]
            for name, held in found.items()
            if any(each.state is Liveness.UNCLEAR for each in held)
        }
        if not again:
            break
    return [holder for held in found.values() for holder in held]


def _looked_at(
    pool: Pool, images: Mapping[str, str]
) -> dict[str, list[Holder]]:
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
            mirror = client.client_id in mirrors
            found[name].append(
                Holder(
                    name,
                    client.client_id,
                    client.address,
                    client.lock_cookie is not None,
                    Liveness.MIRROR if mirror else _state(client, verdict),
                )
            )
    return found


def _state(client: Client, verdict: fencing.Verdict) -> Liveness:
    if client in verdict.dead:
        return Liveness.DEAD
    alive = verdict.alive and client.watches and not verdict.unclear
    return Liveness.ALIVE if alive else Liveness.UNCLEAR
