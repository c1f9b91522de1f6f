# SPDX-License-Identifier: Apache-2.0

"""Fence the dead clients of disks, so that nobody waits for them.

A client that died keeps its watch for 30 s (osd_client_watch_timeout) and its
lock for good, and one that is only frozen may write again. Both go on Ceph's
blocklist, for long; then exactly their locks are broken. In this order: a
process that dies between the two leaves a lock without a watch, which the
next one breaks. A client that gives a sign of life is never touched. One of
rbd-mirror is no guest, and is left alone.
"""

import dataclasses
import time
from collections.abc import Iterable, Mapping

from nova_rbd_backend import errors, names, notices, threads
from nova_rbd_backend.ceph.cluster import Cluster, once_more
from nova_rbd_backend.ceph.holders import Answer, Client, Lock
from nova_rbd_backend.ceph.pool import Pool

#: A client is asked twice, and dead when it is silent both times.
ANSWER_SECONDS = 1
#: Snaps, resizes and the like of other hosts are waited for.
ALIVE_LIMIT_SECONDS = 5.0
#: Of several clients some are silent, and who is not said: when
#: osd_client_watch_timeout (30 s) is over, the dead ones are gone.
UNCLEAR_LIMIT_SECONDS = 40.0
_PAUSE_SECONDS = 0.5
_LATE_SECONDS = 1.0
# One to fence, one to see that nothing is left; more where others die.
_ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is known of the clients that hold one disk.

    Ours and those of rbd-mirror are left out.

    :ivar dead: to be fenced
    :ivar alive: some are alive
    :ivar unclear: of some it cannot be said
    """

    dead: tuple[Client, ...] = ()
    alive: bool = False
    unclear: bool = False

    @property
    def held(self) -> bool:
        return self.alive or self.unclear


def judge(
    before: Iterable[Client],
    answer: Answer | None,
    after: Iterable[Client],
    own_id: int,
    mirrors: Answer | None = None,
) -> Verdict:
    """Tell the dead from the living.

    :param before, after: who held the disk before and after the question:
        only who did at both times may count as dead
    :param answer: None: it came too late
    :param mirrors: of the daemons of rbd-mirror; None: none copies the disk
    """
    no_guests = {own_id, *(mirrors.awake if mirrors else ())}
    foreign = [each for each in after if each.client_id not in no_guests]
    stayed = set(before) & set(foreign)
    watching = [client for client in foreign if client.watches]
    if answer is None:
        return Verdict(unclear=bool(foreign))
    # librbd's own rule (ManagedLock, BreakRequest.cc, 16.2): a client lets
    # go of its lock before it ends its watch.
    dead = [client for client in stayed if not client.watches]
    # One whose watch lapsed just now is known to be dead at the next look.
    lapsed = any(not client.watches for client in set(foreign) - stayed)
    if mirrors is not None and mirrors.silent:
        return Verdict(tuple(dead), unclear=bool(watching) or lapsed)
    if not answer.silent:
        awake = {c for c in watching if c.client_id in answer.awake}
        unclear = len(awake) < len(watching) or lapsed
        return Verdict(tuple(dead), bool(awake), unclear)
    # Whichever of several it was that did not answer: ours may be one.
    asked = {client for client in (*before, *after) if client.watches}
    # Of a dead mirror daemon, which needs no lock, the watch by which it is
    # known may lapse first.
    guests = mirrors is None or all(client.lock_cookie for client in asked)
    if guests and len(asked) == 1 and asked <= stayed:
        return Verdict((*dead, *asked))
    return Verdict(tuple(dead), unclear=bool(watching) or lapsed)


@once_more
def fence(pool: Pool, images: Mapping[str, str]) -> dict[str, Verdict]:
    """Fence the dead clients of images; blocks, 2 s where there are some.

    Nobody holds one, the usual case: known in under 1 ms for each image,
    which is not opened for it. Notes each client that is fenced.

    :param images: name -> id
    :returns: the images that are still held, by whom it may be
    """
    held: dict[str, Verdict] = {}
    fenced: set[tuple[str, Client]] = set()
    for _ in range(_ROUNDS):
        held = verdicts(pool, images)
        dead = {
            (name, client)
            for name, verdict in held.items()
            for client in verdict.dead
        }
        # A watch made as its client died may stay (16.2.15): harmless.
        if dead <= fenced:
            break
        _fence_all(pool, images, dead - fenced)
        fenced |= dead
    return {name: verdict for name, verdict in held.items() if verdict.held}


def fence_for_start(pool: Pool, instance_uuid: str) -> None:
    """Make an instance's disks free for its guest; see fence.

    Drafts are no disks yet: whoever makes one may be alive.

    :raises DiskInUse: a client that is alive has one open, and does not let
        go of it in ALIVE_LIMIT_SECONDS: two guests would destroy the disk
    """
    began = time.monotonic()
    prefix = names.DiskName.prefix(instance_uuid)
    images = {
        name: image_id
        for name, image_id in pool.directory.ids(prefix).items()
        if names.final_name(name) == name
    }
    while held := fence(pool, images):
        unclear = any(verdict.unclear for verdict in held.values())
        limit = UNCLEAR_LIMIT_SECONDS if unclear else ALIVE_LIMIT_SECONDS
        if time.monotonic() - began > limit:
            raise _in_use(pool, images, next(iter(held)))
        threads.native_sleep(_PAUSE_SECONDS)
        images = {name: images[name] for name in held}


def _in_use(
    pool: Pool, images: Mapping[str, str], name: str
) -> errors.DiskInUse:
    return errors.DiskInUse(
        "two guests would destroy it",
        watchers=[client.address for client in guests(pool, images[name])],
        operation="start a guest on",
        pool=str(pool),
        image=name,
    )


def guests(pool: Pool, image_id: str) -> tuple[Client, ...]:
    """Who holds an image, but for this process and rbd-mirror."""
    mirrors = pool.holders.ask_mirrors(ANSWER_SECONDS)
    no_guests = {pool.cluster.client_id(), *mirrors.awake}
    return tuple(
        client
        for client in clients(pool, image_id)
        if client.client_id not in no_guests
    )


def clients(pool: Pool, image_id: str) -> tuple[Client, ...]:
    """Who holds an image, dead or alive; no such image: nobody."""
    try:
        with pool.open(image_id=image_id) as disk:
            return disk.clients()
    except errors.ImageNotFound:
        return ()


def verdicts(pool: Pool, images: Mapping[str, str]) -> dict[str, Verdict]:
    """The verdicts on the images that somebody else holds.

    :param images: name -> id
    """
    own_id = pool.cluster.client_id()
    locks = {
        name: pool.holders.locks(image_id) for name, image_id in images.items()
    }
    answers = pool.holders.ask_watchers(images.values(), ANSWER_SECONDS)
    suspects = {
        name: answers.get(image_id)
        for name, image_id in images.items()
        if _is_held(locks[name], answers.get(image_id), own_id)
    }
    mirrors = _mirrors(pool, {name: images[name] for name in suspects})
    verdicts = {}
    doubtful = {}
    for name, answer in suspects.items():
        copied = mirrors.get(name, Answer())
        if copied.silent or _is_doubtful(locks[name], answer):
            doubtful[name] = images[name]
        elif answer is not None and answer.awake - copied.awake - {own_id}:
            verdicts[name] = Verdict(alive=True)
    if doubtful:
        verdicts |= _judged(pool, doubtful, own_id, mirrors)
    return verdicts


def _mirrors(pool: Pool, images: Mapping[str, str]) -> dict[str, Answer]:
    """What the daemons of rbd-mirror answer, for images that they copy."""
    copied = [
        name for name in images if pool.holders.is_mirrored(images[name])
    ]
    if not copied:
        return {}
    return dict.fromkeys(copied, pool.holders.ask_mirrors(ANSWER_SECONDS))


def _is_held(
    locks: tuple[Lock, ...], answer: Answer | None, own_id: int
) -> bool:
    if answer is None or _is_doubtful(locks, answer):
        return True
    return bool(answer.awake - {own_id})


def _is_doubtful(locks: tuple[Lock, ...], answer: Answer | None) -> bool:
    if answer is None or answer.silent:
        return True
    return any(lock.client_id not in answer.awake for lock in locks)


def _judged(
    pool: Pool,
    images: Mapping[str, str],
    own_id: int,
    mirrors: Mapping[str, Answer],
) -> dict[str, Verdict]:
    before = {name: clients(pool, images[name]) for name in images}
    answers = pool.holders.ask_watchers(images.values(), ANSWER_SECONDS)
    return {
        name: judge(
            before[name],
            answers.get(image_id),
            clients(pool, image_id),
            own_id,
            mirrors.get(name),
        )
        for name, image_id in images.items()
    }


def _fence_all(
    pool: Pool,
    images: Mapping[str, str],
    dead: Iterable[tuple[str, Client]],
) -> None:
    _blocklist_all(pool.cluster, {client.address for _, client in dead})
    for name, client in dead:
        if client.lock_cookie is not None:
            lock = Lock(client.client_id, client.lock_cookie)
            pool.holders.break_lock(images[name], lock)
        notices.note(
            notices.Fenced(
                pool=str(pool),
                image=name,
                client_id=client.client_id,
                address=client.address,
                lock_broken=client.lock_cookie is not None,
                blocklist_seconds=pool.cluster.settings.blocklist_seconds,
            )
        )


def _blocklist_all(cluster: Cluster, addresses: Iterable[str]) -> None:
    """Keep clients from the OSDs, all at the same time.

    Each disk of a guest has a client of its own (QEMU 7.2, block/rbd.c), and
    the monitors take up to a second for a change. librados waits for the new
    map without a limit (16.2.15, wait_for_latest_osdmap).

    :raises OperationTimedOut: of one it is not known
    """
    failed: list[BaseException] = []

    def attempt(address: str) -> None:
        try:
            cluster.blocklist(address)
        except BaseException as error:
            failed.append(error)

    threading = threads.original_threading()
    workers = [
        threading.Thread(target=attempt, args=(address,), daemon=True)
        for address in addresses
    ]
    for worker in workers:
        worker.start()
    limit = cluster.settings.operation_timeout_seconds
    # librados' own time-out of the command comes first.
    end = time.monotonic() + limit + _LATE_SECONDS
    for worker in workers:
        worker.join(max(0.0, end - time.monotonic()) if limit else None)
    if failed:
        raise failed[0]
    if any(worker.is_alive() for worker in workers):
        raise errors.OperationTimedOut(
            "the monitors gave no answer", operation="blocklist dead clients"
        )
