# SPDX-License-Identifier: Apache-2.0

"""Fence the dead clients of disks, so that no guest waits for them.

A client that has died keeps its watch for 30 s (osd_client_watch_timeout) and
its lock for good; a client that is only frozen may write again. Both are put
on Ceph's blocklist, for a long time, and then their locks are broken. If a
process dies between these steps, it leaves a lock without a watch, which
another process breaks. A client that gives a sign of life is never fenced, nor
is a client of rbd-mirror.

Only an image with the feature exclusive-lock has a lock. Of another image, a
client whose watch has ended leaves no trace by which it could be fenced.
"""

import contextlib
import dataclasses
import time
from collections.abc import Collection, Iterable, Iterator, Mapping

from nova_rbd_backend import errors, names, notices, threads
from nova_rbd_backend.ceph.cluster import Cluster, once_more
from nova_rbd_backend.ceph.holders import Answer, Client, Lock
from nova_rbd_backend.ceph.image import Image
from nova_rbd_backend.ceph.pool import Pool

#: The wait for an answer. A client that is silent twice is dead.
ANSWER_SECONDS = 1
#: The wait for snaps, resizes and other short work of living clients.
ALIVE_LIMIT_SECONDS = 5.0
#: The wait if some of several clients are silent, as it is not known which:
#: after osd_client_watch_timeout (30 s) the dead ones are gone.
UNCLEAR_LIMIT_SECONDS = 40.0
_PAUSE_SECONDS = 0.5
_LATE_SECONDS = 1.0
# One round to fence, one to see that nothing is left, and one in reserve in
# case another client dies.
_ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The state of a disk's clients except this process and rbd-mirror."""

    dead: tuple[Client, ...] = ()  # to be fenced
    alive: bool = False  # at least one is alive
    unclear: bool = False  # the state of at least one is not known

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
    """Tell the dead clients from the living.

    :param before, after: the clients that held the disk before and after the
        question; only a client in both may count as dead
    :param answer: None: it came too late
    :param mirrors: the answer of the rbd-mirror daemons; None: the disk is not
        mirrored
    """
    no_guests = {own_id, *(mirrors.awake if mirrors else ())}
    foreign = [each for each in after if each.client_id not in no_guests]
    stayed = set(before) & set(foreign)
    watching = [client for client in foreign if client.watches]
    if answer is None:
        return Verdict(unclear=bool(foreign))
    # librbd's own rule: a client releases its lock before it ends its watch
    # (ManagedLock, BreakRequest.cc, 16.2).
    dead = [client for client in stayed if not client.watches]
    # The next round will find a client dead whose watch has just lapsed.
    lapsed = any(not client.watches for client in set(foreign) - stayed)
    nothing_known = Verdict(tuple(dead), unclear=bool(watching) or lapsed)
    if mirrors is not None and mirrors.silent:
        return nothing_known
    if not answer.silent:
        awake = {c for c in watching if c.client_id in answer.awake}
        some_silent = len(awake) < len(watching)
        return Verdict(tuple(dead), bool(awake), some_silent or lapsed)
    # Any of these, and this process among them, may be the silent one.
    asked = {client for client in (*before, *after) if client.watches}
    # A dead mirror daemon, which needs no lock, may first lose the watch by
    # which it is recognized, so that it looks like a guest.
    guests = mirrors is None or all(client.lock_cookie for client in asked)
    if guests and len(asked) == 1 and asked <= stayed:
        return Verdict((*dead, *asked))
    return nothing_known


@once_more
def fence(pool: Pool, images: Mapping[str, str]) -> dict[str, Verdict]:
    """Fence the dead clients of images, and note each of them.

    Blocks for 2 s if there are dead clients. Usually no client holds an image,
    which takes under 1 ms for each image and does not open it.

    :param images: name -> id
    :returns: the images that living clients, or clients in doubt, still hold
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
        # A client that died while it registered its watch may keep the watch
        # (16.2.15), which is harmless.
        if dead <= fenced:
            break
        _fence_all(pool, images, dead - fenced)
        fenced |= dead
    return {name: verdict for name, verdict in held.items() if verdict.held}


@contextlib.contextmanager
def fenced(
    pool: Pool,
    name: str | None = None,
    image_id: str | None = None,
    frees: bool = False,
) -> Iterator[Image]:
    """Open an image for writing, after fencing its dead clients.

    Every image that another client may have open has to be opened this way.
    librbd breaks a dead client's lock by itself, but may put that client on
    the blocklist for an hour only (mon_osd_blocklist_default_expire). Nobody
    can find and fence the client after that. A rollback does not even wait for
    the lock: it reports that the image is read-only (EROFS, 16.2.15).

    :param name, image_id, frees: see Pool.open
    :raises ImageNotFound: there is no such image
    """
    image_id = image_id or pool.directory.existing_id(str(name), "open")
    fence_dead(pool, {name or image_id: image_id})
    with pool.open(
        name, image_id=image_id, read_only=False, frees=frees
    ) as image:
        yield image


@once_more
def fence_dead(pool: Pool, images: Mapping[str, str]) -> None:
    """Fence the clients of images whose watch has ended, and no others.

    A silent client that still watches may be a guest that hangs for a moment,
    and no start or delete has given it up. Waits for the end of its watch, for
    at most UNCLEAR_LIMIT_SECONDS. If it watches after that, librbd does not
    break its lock either.

    :param images: name -> id
    """
    end = time.monotonic() + UNCLEAR_LIMIT_SECONDS
    while True:
        found = verdicts(pool, images)
        ended = {
            (name, client)
            for name, verdict in found.items()
            for client in verdict.dead
            if not client.watches
        }
        _fence_all(pool, images, ended)
        images = {
            name: images[name]
            for name, verdict in found.items()
            if verdict.unclear or any(c.watches for c in verdict.dead)
        }
        if not images or time.monotonic() > end:
            return
        threads.native_sleep(_PAUSE_SECONDS)


@once_more
def ready_for_start(
    pool: Pool, instance_uuid: str, disks: Collection[str] | None = None
) -> bool:
    """Do what fence_for_start does, if no other client holds the disks.

    Does not wait for clients, except once for the answer of one that has a
    disk open without its lock.

    :returns: False: clients hold the disks, and nothing has been changed
    """
    images = _disks(pool, instance_uuid, disks)
    if any(pool.holders.locks(image_id) for image_id in images.values()):
        return False
    answers = pool.holders.ask_watchers(images.values(), ANSWER_SECONDS)
    if any(answers.get(each) != Answer() for each in images.values()):
        return False
    _require_locks(pool, images)
    return True


def fence_for_start(
    pool: Pool, instance_uuid: str, disks: Collection[str] | None = None
) -> None:
    """Fence the dead clients of an instance's disks before its guest starts.

    Leaves out drafts, which are no disks yet, and whose maker may be alive.
    Adds exclusive-lock to the disks without it, such as disks of Nova's own
    backend, so that the guest that starts now can be fenced later.

    :param disks: names of the disks that the guest opens; None: all disks
    :raises DiskInUse: a living client still has a disk open after
        ALIVE_LIMIT_SECONDS; two guests would destroy it
    """
    began = time.monotonic()
    found = images = _disks(pool, instance_uuid, disks)
    while held := fence(pool, images):
        unclear = any(verdict.unclear for verdict in held.values())
        limit = UNCLEAR_LIMIT_SECONDS if unclear else ALIVE_LIMIT_SECONDS
        if time.monotonic() - began > limit:
            name = next(iter(held))
            users = guests(pool, images[name])
            raise errors.DiskInUse(
                "two guests would destroy it",
                watchers=[client.address for client in users],
                operation="start a guest on",
                pool=str(pool),
                image=name,
            )
        threads.native_sleep(_PAUSE_SECONDS)
        images = {name: images[name] for name in held}
    _require_locks(pool, found)


def _disks(
    pool: Pool, instance_uuid: str, disks: Collection[str] | None
) -> dict[str, str]:
    """Return name -> id of these disks, or of all, without drafts."""
    prefix = names.DiskName.prefix(instance_uuid)
    return {
        name: image_id
        for name, image_id in pool.directory.ids(prefix).items()
        if not names.is_draft(name) and (disks is None or name in disks)
    }


def _require_locks(pool: Pool, images: Mapping[str, str]) -> None:
    for name, image_id in images.items():
        _require_lock(pool, name, image_id)


def _require_lock(pool: Pool, name: str, image_id: str) -> None:
    """Add exclusive-lock to a disk that nobody holds, and note that.

    If it cannot be added, this is noted too, and the guest starts as it did
    before.
    """
    refusal = None
    try:
        if pool.headers.has_exclusive_lock(image_id):
            return
        with pool.open(image_id=image_id, read_only=False, frees=True) as disk:
            disk.enable_exclusive_lock()
    except errors.ImageNotFound:
        return
    except errors.UNREACHED:
        raise
    except errors.StorageError as error:
        refusal = str(error)
    notices.note(notices.Lockless(str(pool), name, refusal))


def guests(pool: Pool, image_id: str) -> tuple[Client, ...]:
    """Return the holders of an image except this process and rbd-mirror."""
    mirrors = pool.holders.ask_mirrors(ANSWER_SECONDS)
    no_guests = {pool.cluster.client_id(), *mirrors.awake}
    return tuple(
        client
        for client in clients(pool, image_id)
        if client.client_id not in no_guests
    )


def clients(pool: Pool, image_id: str) -> tuple[Client, ...]:
    """Return the holders of an image, dead or alive; none if it is gone."""
    try:
        with pool.open(image_id=image_id) as disk:
            return disk.clients()
    except errors.ImageNotFound:
        return ()


def verdicts(pool: Pool, images: Mapping[str, str]) -> dict[str, Verdict]:
    """Return the verdicts on the images (name -> id) that others hold."""
    own_id = pool.cluster.client_id()
    locks = {
        name: pool.holders.locks(image_id) for name, image_id in images.items()
    }
    answers = pool.holders.ask_watchers(images.values(), ANSWER_SECONDS)
    awake, doubtful = {}, {}
    for name, image_id in images.items():
        answer = answers.get(image_id)
        if answer is None or _is_doubtful(locks[name], answer):
            doubtful[name] = image_id
        elif answer.awake - {own_id}:
            awake[name] = answer.awake - {own_id}
    mirrors = _mirrors(pool, {name: images[name] for name in awake | doubtful})
    found = {}
    for name, client_ids in awake.items():
        daemons = mirrors.get(name, Answer())
        if daemons.silent:
            doubtful[name] = images[name]
        elif client_ids - daemons.awake:
            found[name] = Verdict(alive=True)
    if doubtful:
        found |= _judged(pool, doubtful, own_id, mirrors)
    return found


def _mirrors(pool: Pool, images: Mapping[str, str]) -> dict[str, Answer]:
    """Return the answer of the rbd-mirror daemons, by mirrored image."""
    copied = [
        name for name in images if pool.holders.is_mirrored(images[name])
    ]
    if not copied:
        return {}
    return dict.fromkeys(copied, pool.holders.ask_mirrors(ANSWER_SECONDS))


def _is_doubtful(locks: tuple[Lock, ...], answer: Answer) -> bool:
    unheard = any(lock.client_id not in answer.awake for lock in locks)
    return answer.silent or unheard


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
        fenced = notices.Fenced(
            str(pool),
            name,
            client.client_id,
            client.address,
            lock_broken=client.lock_cookie is not None,
            blocklist_seconds=pool.cluster.settings.blocklist_seconds,
        )
        notices.note(fenced)


def _blocklist_all(cluster: Cluster, addresses: Iterable[str]) -> None:
    """Put clients on the blocklist, all at the same time.

    Each disk of a guest has a client of its own (QEMU 7.2, block/rbd.c), and
    the monitors take up to a second for each change. librados waits for the
    new map without a limit (16.2.15, wait_for_latest_osdmap).

    :raises OperationTimedOut: a client may not be on the blocklist
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
    # Leaves time for librados' own time-out of the command.
    end = time.monotonic() + limit + _LATE_SECONDS
    for worker in workers:
        worker.join(max(0.0, end - time.monotonic()) if limit else None)
    if failed:
        raise failed[0]
    if any(worker.is_alive() for worker in workers):
        raise errors.OperationTimedOut(
            "the monitors gave no answer", operation="blocklist dead clients"
        )
