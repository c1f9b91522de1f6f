# SPDX-License-Identifier: Apache-2.0

"""Read and write the byte layouts of librbd, cls_rbd and cls_lock.

Pure functions. From include/encoding.h, cls_rbd_types.h, cls_lock_types.h and
cls_lock_ops.h of Ceph 16.2.
"""

import datetime
import struct
from collections.abc import Mapping

_EXCLUSIVE = 1  # cls_lock_types.h: ClsLockType
_ENTITY_CLIENT = 8  # CEPH_ENTITY_TYPE_CLIENT, include/msgr.h
# A NotifyOp that no version knows (librbd/mirroring_watcher/Types.h).
_NO_OPERATION = 0x7F7F7F7F
# cls::rbd::TrashImageState: NORMAL is 0, MOVING 1 (cls_rbd_types.h)
_FROM_MOVING_TO_NORMAL = struct.pack("<BB", 0, 1)


def header(image_id: str) -> str:
    """Return the name of an image's header object."""
    return f"rbd_header.{image_id}"


def decoded(value: bytes) -> str:
    """Read a string."""
    (length,) = struct.unpack_from("<I", value)
    return value[4 : 4 + length].decode()


def encoded(text: str) -> bytes:
    """Write a string."""
    return struct.pack("<I", len(text.encode())) + text.encode()


def encoded_map(values: Mapping[str, str]) -> bytes:
    """Write map<string, bufferlist>."""
    parts = [struct.pack("<I", len(values))]
    for key, value in values.items():
        parts += (encoded(key), encoded(value))
    return b"".join(parts)


def sealed(*parts: str | bytes) -> bytes:
    """Write ENCODE_START(1, 1) around strings and bytes."""
    body = b"".join(
        encoded(part) if isinstance(part, str) else part for part in parts
    )
    return struct.pack("<BBI", 1, 1, len(body)) + body


def unsealed(data: bytes, start: int) -> tuple[bytes, int]:
    """Read the body after ENCODE_START; return it and where it ends."""
    (length,) = struct.unpack_from("<2xI", data, start)
    begin = start + 6
    return data[begin : begin + length], begin + length


def number(value: int) -> bytes:
    """Write an unsigned 64-bit number, such as a snap's id."""
    return struct.pack("<Q", value)


def read_number(value: bytes) -> int:
    """Read an unsigned 64-bit number."""
    return int(struct.unpack("<Q", value)[0])


def utime(value: bytes) -> datetime.datetime:
    """Read utime_t, to the second, in UTC."""
    seconds, _ = struct.unpack_from("<II", value)
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def sealed_time(answer: bytes) -> float:
    """Read ceph::real_time after ENCODE_START, as time.time() has it."""
    body, _ = unsealed(answer, 0)
    seconds, nanoseconds = struct.unpack_from("<II", body)
    return float(seconds + nanoseconds / 1e9)


def size_and_order(answer: bytes) -> tuple[int, int]:
    """Read the answer of get_size: bytes, and the order of the objects."""
    order, size = struct.unpack_from("<BQ", answer)
    return int(size), int(order)


def snap_ids(answer: bytes) -> tuple[int, ...]:
    """Read the answer of get_snapcontext."""
    (count,) = struct.unpack_from("<8xI", answer)
    return struct.unpack_from(f"<12x{count}Q", answer)


def parent_spec(answer: bytes) -> tuple[int, str, str] | None:
    """Read ParentImageSpec: pool id, namespace, image id; None: no parent."""
    (pool_id,) = struct.unpack_from("<q", answer, 6)  # after the version
    if pool_id < 0:
        return None
    namespace = decoded(answer[14:])
    start = 18 + len(namespace.encode())
    return int(pool_id), namespace, decoded(answer[start:])


def child_specs(value: bytes) -> list[tuple[int, str, str]]:
    """Read set<ChildImageSpec>, as pool id, namespace, image id.

    Before each spec stand its version, the oldest version that can read it,
    and its length.
    """
    (count,) = struct.unpack_from("<I", value)
    specs, at = [], 4
    for _ in range(count):
        length, pool_id = struct.unpack_from("<2xIq", value, at)
        image_id = decoded(value[at + 14 :])
        namespace = decoded(value[at + 18 + len(image_id.encode()) :])
        specs.append((pool_id, namespace, image_id))
        at += 6 + length
    return specs


def lockers(data: bytes) -> list[tuple[int, str]]:
    """Read cls_lock_get_info_reply: client id and cookie of each locker."""
    body, _ = unsealed(data, 0)
    (count,) = struct.unpack_from("<I", body)
    found, at = [], 4
    for _ in range(count):
        owner, at = unsealed(body, at)
        _, at = unsealed(body, at)
        (client_id,) = struct.unpack_from("<xq", owner)
        found.append((int(client_id), decoded(owner[9:])))
    return found


def break_lock(name: str, client_id: int, cookie: str) -> bytes:
    """Write cls_lock_break_op."""
    locker = struct.pack("<Bq", _ENTITY_CLIENT, client_id)
    return sealed(name, locker, cookie)


def assert_locked(name: str, cookie: str) -> bytes:
    """Write cls_lock_assert_op for an exclusive lock without a tag."""
    return sealed(name, struct.pack("<B", _EXCLUSIVE), cookie, "")


def end_of_move(image_id: str) -> bytes:
    """Write the request that ends an image's move to the trash."""
    return encoded(image_id) + _FROM_MOVING_TO_NORMAL


def no_operation() -> str:
    """Return a message that a mirror daemon answers, but does not act on.

    MirroringWatcher.cc logs an empty message as an error. The message is text
    because python-rados takes nothing else.
    """
    return sealed(struct.pack("<I", _NO_OPERATION)).decode("ascii")
