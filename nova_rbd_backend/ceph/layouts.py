# SPDX-License-Identifier: Apache-2.0

"""The names, keys and bytes of librbd, cls_rbd, cls_lock and cls_otp.

Pure functions and constants. No other module packs or unpacks bytes of Ceph's
objects, or names the objects and their keys. Each public name here is one
layout, which ceph.comparison compares with what librbd itself says.

From librbd, include/encoding.h, cls_rbd_types.h, cls_rbd.cc, cls_lock_types.h
and cls_lock_ops.h of Ceph 16.2; the same in 18.2 and 20.2.
"""

import datetime
import struct
from collections.abc import Mapping

#: The object that lists a pool's images; see id_by_name, name_by_id.
DIRECTORY = "rbd_directory"
#: The object that lists the images in the trash.
TRASH = "rbd_trash"
#: The object that has a pool's metadata.
POOL_INFO = "rbd_info"
#: The object that lists a pool's namespaces; see id_by_name.
NAMESPACES = "rbd_namespace"
#: The object that lists mirrored images, and that mirror daemons watch.
MIRRORING = "rbd_mirroring"
#: The name of an image's exclusive lock, which is a cls_lock of its header.
LOCK = "rbd_lock"
#: The message by which librbd tells that a header has changed.
HEADER_CHANGED = ""
#: The id of an image's head, in place of a snap's (CEPH_NOSNAP).
HEAD = 0xFFFFFFFFFFFFFFFE
#: Before a snap's id: the key of the snap's clones, in a header's omap.
CLONES = "snap_children_"
#: Before the keys of striping().
STRIPES = "stripe_"

_NAME = "name_"
_METADATA = "metadata_"
_LEASE = "lock."
_EXCLUSIVE = 1  # cls_lock_types.h: ClsLockType
_ENTITY_CLIENT = 8  # CEPH_ENTITY_TYPE_CLIENT, include/msgr.h
# A NotifyOp that no version knows (librbd/mirroring_watcher/Types.h).
_NO_OPERATION = 0x7F7F7F7F
_NORMAL, _MOVING = 0, 1  # cls::rbd::TrashImageState (cls_rbd_types.h)
_KEY_HEAD = struct.Struct("<HIIH")


# objects and keys


def header(image_id: str) -> str:
    """Return the name of an image's header object."""
    return f"rbd_header.{image_id}"


def id_object(image: str) -> str:
    """Return the name of the object that has the id of an image's name."""
    return f"rbd_id.{image}"


def id_by_name(image: str) -> str:
    """Return the key in rbd_directory of an image's id, or its beginning."""
    return f"{_NAME}{image}"


def name_of_key(key: str) -> str:
    """Return the image, or the namespace, of a key of id_by_name."""
    return key.removeprefix(_NAME)


def name_by_id(image_id: str) -> str:
    """Return the key in rbd_directory and in rbd_trash of an image."""
    return f"id_{image_id}"


def metadata_key(key: str) -> str:
    """Return the key of metadata in the omap of a header or rbd_info."""
    return f"{_METADATA}{key}"


def metadata_of_key(key: str) -> str:
    """Return what metadata a key of metadata_key is."""
    return key.removeprefix(_METADATA)


def time_key(what: str) -> str:
    """Return the key of a time in a header's omap.

    :param what: ``create``, ``access`` or ``modify``
    """
    return f"{what}_timestamp"


def mirror_key(image_id: str) -> str:
    """Return the key in rbd_mirroring of an image."""
    return f"image_{image_id}"


def lease_xattr(name: str) -> str:
    """Return the xattr in which cls_lock keeps a lock, or its beginning."""
    return f"{_LEASE}{name}"


def lease_of_xattr(xattr: str) -> str:
    """Return the lock of an xattr of lease_xattr."""
    return xattr.removeprefix(_LEASE)


# strings, numbers and times


def decoded(value: bytes) -> str:
    """Read a string, such as an image's id or name."""
    (length,) = struct.unpack_from("<I", value)
    return value[4 : 4 + length].decode()


def encoded(text: str) -> bytes:
    """Write a string, such as an image's id or name."""
    return struct.pack("<I", len(text.encode())) + text.encode()


def snap_id(value: int) -> bytes:
    """Write the id of a snap or the head."""
    return struct.pack("<Q", value)


def utime(value: bytes) -> datetime.datetime:
    """Read utime_t, to the second, in UTC."""
    seconds, _ = struct.unpack_from("<II", value)
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _sealed(*parts: str | bytes) -> bytes:
    """Write ENCODE_START(1, 1) around strings and bytes."""
    body = b"".join(
        encoded(part) if isinstance(part, str) else part for part in parts
    )
    return struct.pack("<BBI", 1, 1, len(body)) + body


def _unsealed(data: bytes, start: int) -> tuple[bytes, int]:
    """Read the body after ENCODE_START; return it and where it ends."""
    (length,) = struct.unpack_from("<2xI", data, start)
    begin = start + 6
    return data[begin : begin + length], begin + length


# rbd_directory


def directory_entries(image: str, image_id: str) -> dict[str, bytes]:
    """Write the omap entries of an image in rbd_directory."""
    return {
        id_by_name(image): encoded(image_id),
        name_by_id(image_id): encoded(image),
    }


def listed(image: str, image_id: str) -> bytes:
    """Write the request of dir_remove_image."""
    return encoded(image) + encoded(image_id)


def renamed(old: str, new: str, image_id: str) -> bytes:
    """Write the request of dir_rename_image."""
    return encoded(old) + encoded(new) + encoded(image_id)


# headers


def size_and_order(answer: bytes) -> tuple[int, int]:
    """Read the answer of get_size: bytes, and the order of the objects."""
    order, size = struct.unpack_from("<BQ", answer)
    return int(size), int(order)


def features(answer: bytes) -> int:
    """Read the bits of the answer of get_features."""
    (bits,) = struct.unpack_from("<Q", answer)
    return int(bits)


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


def clone_specs(value: bytes) -> list[tuple[int, str, str]]:
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


def striping(entries: Mapping[str, bytes]) -> tuple[int | None, int | None]:
    """Read the omap entries of set_stripe_unit_count: unit and count.

    None: Ceph's default, for which there are no entries.
    """
    unit, count = (
        None if value is None else int(struct.unpack("<Q", value)[0])
        for value in map(entries.get, ("stripe_unit", "stripe_count"))
    )
    return unit, count


def metadata(values: Mapping[str, str]) -> bytes:
    """Write map<string, bufferlist>, the request of metadata_set."""
    parts = [struct.pack("<I", len(values))]
    for key, value in values.items():
        parts += (encoded(key), encoded(value))
    return b"".join(parts)


# locks


def lock_of(name: str) -> bytes:
    """Write cls_lock_get_info_op."""
    return _sealed(name)


def lockers(data: bytes) -> list[tuple[int, str]]:
    """Read cls_lock_get_info_reply: client id and cookie of each locker."""
    body, _ = _unsealed(data, 0)
    (count,) = struct.unpack_from("<I", body)
    found, at = [], 4
    for _ in range(count):
        owner, at = _unsealed(body, at)
        _, at = _unsealed(body, at)
        (client_id,) = struct.unpack_from("<xq", owner)
        found.append((int(client_id), decoded(owner[9:])))
    return found


def break_lock(name: str, client_id: int, cookie: str) -> bytes:
    """Write cls_lock_break_op."""
    locker = struct.pack("<Bq", _ENTITY_CLIENT, client_id)
    return _sealed(name, locker, cookie)


def assert_locked(name: str, cookie: str) -> bytes:
    """Write cls_lock_assert_op for an exclusive lock without a tag."""
    return _sealed(name, struct.pack("<B", _EXCLUSIVE), cookie, "")


# the trash, mirror daemons and the clock


def end_of_move(image_id: str) -> bytes:
    """Write the request that ends an image's move to the trash."""
    return _state_in_trash(image_id, _NORMAL, _MOVING)


def begin_of_move(image_id: str) -> bytes:
    """Write the request by which a trashed image is in such a move again."""
    return _state_in_trash(image_id, _MOVING, _NORMAL)


def _state_in_trash(image_id: str, new: int, old: int) -> bytes:
    """Write the request of trash_state_set."""
    return encoded(image_id) + struct.pack("<BB", new, old)


def no_operation() -> str:
    """Return a message that a mirror daemon answers, but does not act on.

    MirroringWatcher.cc logs an empty message as an error. The message is text
    because python-rados takes nothing else.
    """
    return _sealed(struct.pack("<I", _NO_OPERATION)).decode("ascii")


def clock() -> bytes:
    """Write the request of cls_otp's get_current_time."""
    return _sealed()


def time_of_clock(answer: bytes) -> float:
    """Read ceph::real_time after ENCODE_START, as time.time() has it."""
    body, _ = _unsealed(answer, 0)
    seconds, nanoseconds = struct.unpack_from("<II", body)
    return float(seconds + nanoseconds / 1e9)


# keys of users


def key_type(value: bytes) -> int | None:
    """Return the type of a key of cephx, decoded; None: it is no key.

    1 is aes, with 16 bytes; 2 is aes256k, with 32, from Ceph 20 on. Type,
    time and length stand before them (auth/Crypto.cc).
    """
    if len(value) <= _KEY_HEAD.size:
        return None
    found, _, _, length = _KEY_HEAD.unpack_from(value)
    return int(found) if length == len(value) - _KEY_HEAD.size else None
