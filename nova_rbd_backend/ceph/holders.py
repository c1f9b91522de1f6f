# SPDX-License-Identifier: Apache-2.0

"""Who holds an image: its lock and its watchers, without opening it.

librbd's exclusive lock is a cls_lock named ``rbd_lock`` on the image's header
object, and each client that has the image open for writing watches that
object (librbd/ManagedLock.cc, ImageWatcher.cc, 16.2).
"""

import contextlib
import dataclasses
import errno
import time
from collections.abc import Iterable
from typing import Any

import rados

from nova_rbd_backend import errors, threads
from nova_rbd_backend.ceph import encoding
from nova_rbd_backend.ceph.access import Access
from nova_rbd_backend.ceph.objects import Objects

_LOCK = "rbd_lock"
_MIRRORING = "rbd_mirroring"
# The OSD ends a notify at its limit. An answer that comes later than this
# shows that the OSD was slow, and says nothing about the watchers.
_LATE_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Lock:
    """:ivar client_id: RADOS's global id, as in ``client.4711``"""

    client_id: int
    cookie: str


@dataclasses.dataclass(frozen=True)
class Client:
    """A client that holds an image.

    :ivar address: of this one client, with its nonce
    :ivar lock_cookie: of its exclusive lock; None: it has none
    :ivar watches: it has the image open for writing, or had when it died
    """

    client_id: int
    address: str
    lock_cookie: str | None
    watches: bool


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back when an image's watchers were asked for a sign of life.

    :ivar awake: clients that answered; unknown, and empty, if some did not
    :ivar silent: some did not answer: python-rados 16.2 then does not say
        which clients did
    """

    awake: frozenset[int] = frozenset()
    silent: bool = False


class Holders:
    """Locks and watchers of a pool's images, by image id."""

    def __init__(self, access: Access, objects: Objects):
        self._access = access
        self._objects = objects

    def locks(self, image_id: str) -> tuple[Lock, ...]:
        """Return the image's lock, if it is held; no such image: none.

        cls_lock: get_info.
        """
        try:
            with self._access.reach(
                "look at the lock of", image=image_id
            ) as ioctx:
                _, answer = ioctx.execute(
                    encoding.header(image_id),
                    "lock",
                    "get_info",
                    encoding.sealed(_LOCK),
                )
        except errors.ImageNotFound:
            return ()
        return tuple(Lock(*locker) for locker in encoding.lockers(answer))

    def break_lock(self, image_id: str, lock: Lock) -> None:
        """Break this very lock. Not held any more: done.

        Does not keep its owner from writing: blocklist the owner first.
        cls_lock: break_lock.
        """
        request = encoding.break_lock(_LOCK, lock.client_id, lock.cookie)
        with (
            contextlib.suppress(errors.ImageNotFound),
            self._access.reach(
                "break the lock of", image=image_id, frees=True
            ) as ioctx,
        ):
            ioctx.execute(
                encoding.header(image_id), "lock", "break_lock", request
            )

    def ask_watchers(
        self, image_ids: Iterable[str], limit_seconds: int
    ) -> dict[str, Answer]:
        """Ask all watchers of the images, at the same time, for an answer.

        Sends an empty notify, which librbd and krbd read as "the header has
        changed" (ImageWatcher::handle_notify, 16.2) and answer in a thread of
        their own, whatever the guest does. Returns at once for an image
        without watchers, or if there is no such image. librados:
        rados_aio_notify.

        :param limit_seconds: whole seconds, as the OSD counts them
        :returns: an image of which nothing can be said is left out
        :raises OperationTimedOut: the cluster gave no answer at all
        """
        asked = []
        for image_id in image_ids:
            with self._access.reach(
                "ask the watchers of", image=image_id
            ) as ioctx:
                name = encoding.header(image_id)
                reply = _notify(ioctx, name, limit_seconds)
            asked.append((image_id, reply))
        answers = {}
        for image_id, reply in asked:
            with self._access.reach("ask the watchers of", image=image_id):
                answer = reply.answer(self._reply_limit(limit_seconds))
            if answer is not None:
                answers[image_id] = answer
        return answers

    def is_mirrored(self, image_id: str) -> bool:
        """Return whether rbd-mirror may watch the image.

        cls_rbd: mirror_image_get (16.2).
        """
        entry = self._objects.omap_value(_MIRRORING, f"image_{image_id}")
        return entry is not None

    def ask_mirrors(self, limit_seconds: int) -> Answer:
        """Ask the daemons of rbd-mirror that copy images of this pool.

        Such a daemon keeps a watch on all images that it copies, and with the
        same client a watch on the pool's ``rbd_mirroring``, which nobody else
        watches: librbd knows the daemons by that too
        (ListWatchersRequest.cc, 16.2). Returns at once, and none, where
        mirroring was never enabled. librados: rados_aio_notify.
        """
        with self._access.reach("ask the mirror daemons of") as ioctx:
            message = encoding.no_operation()
            reply = _notify(ioctx, _MIRRORING, limit_seconds, message)
            answer = reply.answer(self._reply_limit(limit_seconds))
        return answer or Answer(silent=True)

    def _reply_limit(self, limit_seconds: int) -> float:
        wait = self._access.cluster.settings.operation_timeout_seconds
        return limit_seconds + _LATE_SECONDS + (wait or 3600.0)


class _Reply:
    """The callback of a notify; called in a thread of librados."""

    def __init__(self, limit_seconds: int):
        self._began = time.monotonic()
        self._latest = self._began + limit_seconds + _LATE_SECONDS
        self._done = threads.original_threading().Event()
        self._code = 0
        self._acks: list[tuple[int, int, bytes]] = []
        self._came = self._began

    def __call__(
        self, completion: Any, code: int, acks: Any, timeouts: Any
    ) -> None:
        self._came = time.monotonic()
        self._code = code
        self._acks = acks or []
        self._done.set()

    def answer(self, limit_seconds: float) -> Answer | None:
        """Wait for the reply; None: it came too late to tell anything."""
        if not self._done.wait(limit_seconds):
            raise rados.OSError("no answer", errno=errno.ETIMEDOUT)
        if self._code == -errno.ENOENT:
            return Answer()
        if self._code == -errno.ETIMEDOUT:
            in_time = self._came < self._latest
            return Answer(silent=True) if in_time else None
        if self._code:
            raise rados.OSError("notify failed", errno=-self._code)
        return Answer(frozenset(client_id for client_id, *_ in self._acks))


def _notify(
    ioctx: rados.Ioctx, name: str, limit_seconds: int, message: str = ""
) -> _Reply:
    reply = _Reply(limit_seconds)
    ioctx.aio_notify(name, reply, message, timeout_ms=limit_seconds * 1000)
    return reply
