# SPDX-License-Identifier: Apache-2.0

"""Read and break the locks of images, and ask their watchers.

No image is opened. librbd's exclusive lock is a cls_lock named ``rbd_lock`` on
the image's header object, and each client that has the image open for writing
watches that object (librbd/ManagedLock.cc, ImageWatcher.cc, 16.2).
"""

import contextlib
import dataclasses
import errno
import time
from collections.abc import Iterable
from typing import Any

import rados

from nova_rbd_backend import errors, threads
from nova_rbd_backend.ceph import layouts
from nova_rbd_backend.ceph.access import Access
from nova_rbd_backend.ceph.objects import Objects

# The OSD ends a notify at its limit. An answer that comes this much later
# shows that the OSD was slow, and tells nothing about the watchers.
_LATE_SECONDS = 1.0
# librados reads a coarse clock for its time-out, which may end early by a tick
# of the kernel, 1 to 10 ms (Objecter::_op_submit_with_budget, ceph_time.h).
_EARLY_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Lock:
    client_id: int  # RADOS's global id, as in ``client.4711``
    cookie: str


@dataclasses.dataclass(frozen=True)
class Client:
    """A client that holds an image."""

    client_id: int
    address: str  # with the nonce, which distinguishes it from other clients
    lock_cookie: str | None  # of the exclusive lock, if it has that
    watches: bool  # it has the image open for writing, or had when it died


@dataclasses.dataclass(frozen=True)
class Answer:
    """What an image's watchers answered.

    :ivar awake: ids of the clients that answered; empty if one did not,
        because python-rados 16.2 then does not say which clients did
    :ivar silent: at least one did not answer
    """

    awake: frozenset[int] = frozenset()
    silent: bool = False


class Holders:
    """Locks and watchers of a pool's images, by image id."""

    def __init__(self, access: Access, objects: Objects):
        self._access = access
        self._objects = objects

    def locks(self, image_id: str) -> tuple[Lock, ...]:
        """Return the image's locks: one or none. cls_lock: get_info.

        Returns none if there is no such image.
        """
        method, request = ("lock", "get_info"), layouts.lock_of(layouts.LOCK)
        key = layouts.header(image_id)
        try:
            answer = self._access.execute(
                "look at the lock of", image_id, key, method, request
            )
        except errors.ImageNotFound:
            return ()
        return tuple(Lock(*locker) for locker in layouts.lockers(answer))

    def break_lock(self, image_id: str, lock: Lock) -> None:
        """Break exactly this lock, if it is still held.

        Does not keep its owner from writing: blocklist the owner first.
        cls_lock: break_lock.
        """
        with contextlib.suppress(errors.ImageNotFound):
            self._access.execute(
                "break the lock of",
                image_id,
                layouts.header(image_id),
                ("lock", "break_lock"),
                layouts.break_lock(layouts.LOCK, lock.client_id, lock.cookie),
                frees=True,
            )

    def ask_watchers(
        self, image_ids: Iterable[str], limit_seconds: int
    ) -> dict[str, Answer]:
        """Ask all watchers of the images, at the same time, for an answer.

        Sends an empty notify, which librbd and krbd read as "the header has
        changed" (ImageWatcher::handle_notify, 16.2) and answer in a thread of
        their own, whatever the guest does. Returns at once for an image that
        has no watchers or does not exist. librados: rados_aio_notify.

        :param limit_seconds: whole seconds, as the OSD counts them
        :returns: by image id; without the images whose answer came too late
            to tell anything
        :raises OperationTimedOut: the cluster gave no answer at all
        """
        operation = "ask the watchers of"
        replies = {}
        for image_id in image_ids:
            with self._access.reach(operation, image=image_id) as ioctx:
                key = layouts.header(image_id)
                replies[image_id] = self._asked(
                    ioctx, key, limit_seconds, layouts.HEADER_CHANGED
                )
        answers = {}
        for image_id, reply in replies.items():
            with self._access.reach(operation, image=image_id):
                answer = reply.answer()
            if answer is not None:
                answers[image_id] = answer
        return answers

    def is_mirrored(self, image_id: str) -> bool:
        """Return whether it may be mirrored. cls_rbd: mirror_image_get."""
        entry = self._objects.omap_value(
            layouts.MIRRORING, layouts.mirror_key(image_id)
        )
        return entry is not None

    def ask_mirrors(self, limit_seconds: int) -> Answer:
        """Ask the rbd-mirror daemons that copy images of this pool.

        A daemon watches all images that it copies and, as the same client,
        the pool's ``rbd_mirroring``, which no other client watches. librbd
        too recognizes the daemons by that (ListWatchersRequest.cc, 16.2).
        Returns at once, without clients, if mirroring was never enabled.
        librados: rados_aio_notify.
        """
        with self._access.reach("ask the mirror daemons of") as ioctx:
            message = layouts.no_operation()
            reply = self._asked(
                ioctx, layouts.MIRRORING, limit_seconds, message
            )
            answer = reply.answer()
        return answer or Answer(silent=True)

    def _asked(
        self,
        ioctx: rados.Ioctx,
        key: str,
        limit_seconds: int,
        message: str,
    ) -> "_Reply":
        timeout = self._access.cluster.settings.operation_timeout_seconds
        return _Reply(ioctx, key, limit_seconds, timeout or 3600, message)


class _Reply:
    """A notify, and the callback of its reply in a thread of librados.

    :param limit_seconds: when the OSD ends the notify
    :param timeout_seconds: when librados ends it by itself, with the same
        error, unless an OSD has taken it
    """

    def __init__(
        self,
        ioctx: rados.Ioctx,
        key: str,
        limit_seconds: int,
        timeout_seconds: int,
        message: str,
    ):
        late_seconds = limit_seconds + _LATE_SECONDS
        timely_seconds = min(late_seconds, timeout_seconds - _EARLY_SECONDS)
        self._latest = time.monotonic() + timely_seconds
        self._wait_seconds = late_seconds + timeout_seconds
        self._done = threads.original_threading().Event()
        self._code = 0
        self._acks: list[tuple[int, int, bytes]] = []
        self._in_time = True
        milliseconds = limit_seconds * 1000
        ioctx.aio_notify(key, self, message, timeout_ms=milliseconds)

    def __call__(
        self, completion: Any, code: int, acks: Any, timeouts: Any
    ) -> None:
        self._in_time = time.monotonic() < self._latest
        self._code = code
        self._acks = acks or []
        self._done.set()

    def answer(self) -> Answer | None:
        """Wait for the reply; None: it came too late to tell anything."""
        if not self._done.wait(self._wait_seconds):
            raise rados.OSError("no answer", errno=errno.ETIMEDOUT)
        if self._code == -errno.ENOENT:
            return Answer()
        if self._code == -errno.ETIMEDOUT:
            return Answer(silent=True) if self._in_time else None
        if self._code:
            raise rados.OSError("notify failed", errno=-self._code)
        return Answer(frozenset(client_id for client_id, *_ in self._acks))
