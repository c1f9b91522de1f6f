# SPDX-License-Identifier: Apache-2.0

"""Compare who has an image open or locked, and leases."""

import contextlib

import rbd

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import layouts
from nova_rbd_backend.ceph.comparison.same import comparing, same
from nova_rbd_backend.ceph.image import Image
from nova_rbd_backend.ceph.pool import Pool

# The name and cookie of locks and leases.
_NAME = "nova-rbd-check"
# A notify of this process to itself, on a host that may be busy.
_ANSWER_SECONDS = 20
_LEASE_SECONDS = 30


def compare(pool: Pool, clone: Image) -> None:
    """Compare the clone's lock and watchers; end a lock and a lease."""
    handle = clone._image
    with clone._reach("lock"):
        handle.lock_exclusive(_NAME)
    try:
        _break_lock(pool, clone)
    finally:
        # librbd would try for ever to remove an image that this process
        # has locked in this way (16.2). No error: the lock is broken.
        with contextlib.suppress(rbd.Error):
            handle.unlock(_NAME)
    _end_lease(pool, clone)


def _break_lock(pool: Pool, clone: Image) -> None:
    holders, image_id = pool.holders, clone.image_id
    with clone._reach("compare"):
        held = _lockers(clone._image)
        watchers = {int(each["id"]) for each in clone._image.watchers_list()}
    layout = "lock of an image (get_info)"
    with comparing(layout):
        locks = holders.locks(image_id)
    same(
        layout,
        lambda: [(lock.client_id, lock.cookie) for lock in locks],
        held,
    )
    layout = "break of a lock (break_lock)"
    with comparing(layout):
        for lock in locks:
            holders.break_lock(image_id, lock)
    # librbd reads the lock again after this message.
    with comparing("watchers of an image (notify)"):
        answers = holders.ask_watchers([image_id], _ANSWER_SECONDS)
    answer = answers.get(image_id)
    if answer is None or answer.silent:
        raise errors.OperationTimedOut(
            "this process did not answer itself",
            operation="ask the watchers of",
            pool=str(pool),
            image=clone.name,
        )
    same(
        "watchers of an image (notify)",
        lambda: set(answer.awake),
        watchers,
    )
    with clone._reach("compare"):
        left = _lockers(clone._image)
    same(layout, lambda: [], left)


def _end_lease(pool: Pool, clone: Image) -> None:
    objects, layout = pool.objects, "leases (assert_locked, lock.)"
    key = layouts.header(clone.image_id)
    with comparing(layout):
        taken = objects.lease(key, _NAME, _NAME, _LEASE_SECONDS, _NAME)
    same(layout, lambda: taken and _NAME in objects.leases(key), True)
    same(layout, lambda: objects.end_lease(key, _NAME, "other"), False)
    same(layout, lambda: objects.end_lease(key, _NAME, _NAME), True)
    same(layout, lambda: _NAME in objects.leases(key), False)


def _lockers(handle: rbd.Image) -> list[tuple[int, str]]:
    # 16.2 returns an empty list in place of the dict if there is no lock.
    return [
        (int(client.removeprefix("client.")), cookie)
        for client, cookie, _ in (handle.list_lockers() or {}).get(
            "lockers", ()
        )
    ]
