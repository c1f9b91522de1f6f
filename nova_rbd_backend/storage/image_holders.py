# SPDX-License-Identifier: Apache-2.0

"""Who holds an image: its lock and its watchers, without opening it.

librbd's exclusive lock is a cls_lock named ``rbd_lock`` on the image's header
object, and each client that has the image open for writing watches that
object (librbd/ManagedLock.cc, ImageWatcher.cc, 16.2).
"""

import contextlib
import dataclasses
import errno
import struct
import time
from collections.abc import Iterable
from typing import Any

import rados

from nova_rbd_backend import errors
from nova_rbd_backend.storage import offload
from nova_rbd_backend.storage.pool_objects import (
    PoolObjects,
    decoded,
    sealed,
)

_LOCK = "rbd_lock"
_MIRRORING = "rbd_mirroring"
_ENTITY_CLIENT = 8  # CEPH_ENTITY_TYPE_CLIENT, include/msgr.h
# The OSD ends a notify at its limit. What comes later than this says that
# the OSD was slow, and nothing about the watchers.
_LATE_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Lock:
    """:ivar client_id: RADOS's global id, as in ``client.4711``"""

    client_id: int
    cookie: str


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back when an image's watchers were asked for a sign of life.

    :ivar awake: clients that gave it; unknown, and empty, when some did not
    :ivar silent: some did not: python-rados 16.2 then drops who did
    """

    awake: frozenset[int] = frozenset()
    silent: bool = False


class ImageHolders(PoolObjects):
    """Locks and watchers of a pool's images, by image id."""

    def locks(self, image_id: str) -> tuple[Lock, ...]:
        """The image's lock, if it is held; no such image: none.

        cls_lock: get_info.
        """
        try:
            with self._reach("look at the lock of", image=image_id) as ioctx:
                _, answer = ioctx.execute(
                    _header(image_id), "lock", "get_info", sealed(_LOCK)
                )
        except errors.ImageNotFound:
            return ()
        return _decoded_locks(answer)

    def break_lock(self, image_id: str, lock: Lock) -> None:
        """Break this very lock; not held: done. cls_lock: break_lock.

        Does not keep its owner from writing: blocklist it first.
        """
        request = sealed(
            _LOCK,
            struct.pack("<Bq", _ENTITY_CLIENT, lock.client_id),
            lock.cookie,
        )
        with (
            contextlib.suppress(errors.ImageNotFound),
            self._reach(
                "break the lock of", image=image_id, frees=True
            ) as ioctx,
        ):
            ioctx.execute(_header(image_id), "lock", "break_lock", request)

    def ask_watchers(
        self, image_ids: Iterable[str], limit_seconds: int
    ) -> dict[str, Answer]:
        """Ask all watchers of the images, at the same time, for an answer.

        An empty notify, which librbd and krbd read as "the header has
        changed" (ImageWatcher::handle_notify, 16.2) and answer in a thread of
        their own, whatever the guest does. Whole seconds: the OSD counts
        them. No watchers, or no such image: comes back at once.
        librados: rados_aio_notify.

        :returns: an image of which nothing can be said is left out
        :raises OperationTimedOut: the cluster gave no answer at all
        """
        asked = []
        for image_id in image_ids:
            with self._reach("ask the watchers of", image=image_id) as ioctx:
                reply = _notify(ioctx, _header(image_id), limit_seconds)
            asked.append((image_id, reply))
        answers = {}
        for image_id, reply in asked:
            with self._reach("ask the watchers of", image=image_id):
                answer = reply.answer(self._reply_limit(limit_seconds))
            if answer is not None:
                answers[image_id] = answer
        return answers

    def is_mirrored(self, image_id: str) -> bool:
        """May rbd-mirror watch the image? cls_rbd: mirror_image_get (16.2)."""
        return self.omap_value(_MIRRORING, f"image_{image_id}") is not None

    def ask_mirrors(self, limit_seconds: int) -> Answer:
        """Ask the daemons of rbd-mirror, which copy images of this pool.

        Each keeps a watch on all images that it copies, and with the same
        client one on the pool's ``rbd_mirroring``, where nobody else has one:
        librbd knows them by that too (ListWatchersRequest.cc, 16.2).
        Mirroring was never enabled: none, at once.
        librados: rados_aio_notify.
        """
        with self._reach("ask the mirror daemons of") as ioctx:
            reply = _notify(ioctx, _MIRRORING, limit_seconds, _no_operation())
            answer = reply.answer(self._reply_limit(limit_seconds))
        return answer or Answer(silent=True)

    def _reply_limit(self, limit_seconds: int) -> float:
        wait = self.cluster.settings.operation_timeout_seconds
        return limit_seconds + _LATE_SECONDS + (wait or 3600.0)


class _Reply:
    """The callback of a notify; called in a thread of librados."""

    def __init__(self, limit_seconds: int):
        self._began = time.monotonic()
        self._latest = self._began + limit_seconds + _LATE_SECONDS
        self._done = offload.original_threading().Event()
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
        """Wait for it; None: it came too late to tell anything."""
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


def _no_operation() -> str:
    """What a mirror daemon answers and does not heed (MirroringWatcher.cc).

    It would log an empty message as an error. python-rados takes text only.
    """
    return sealed(struct.pack("<I", 0x7F7F7F7F)).decode("ascii")


def _header(image_id: str) -> str:
    return f"rbd_header.{image_id}"


def _unsealed(data: bytes, start: int) -> tuple[bytes, int]:
    """What ENCODE_START put a head before; where the next thing begins."""
    (length,) = struct.unpack_from("<2xI", data, start)
    begin = start + 6
    return data[begin : begin + length], begin + length


def _decoded_locks(data: bytes) -> tuple[Lock, ...]:
    """Read cls_lock_get_info_reply: map<locker_id_t, locker_info_t>."""
    body, _ = _unsealed(data, 0)
    (count,) = struct.unpack_from("<I", body)
    locks = []
    at = 4
    for _ in range(count):
        owner, at = _unsealed(body, at)
        _, at = _unsealed(body, at)
        (client_id,) = struct.unpack_from("<xq", owner)
        locks.append(Lock(client_id, decoded(owner[9:])))
    return tuple(locks)
