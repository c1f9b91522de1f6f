# SPDX-License-Identifier: Apache-2.0

"""The layouts, with bytes that a Ceph 16.2.15 stored or answered.

The requests are those that it accepted.
"""

import datetime

import pytest

from nova_rbd_backend.ceph import layouts

_ID = "1018b0dea90d"
# The image disk in namespace team of pool 3: 4 MiB, objects of 1 MiB, snaps
# one and two, and two clones of snap two in the pool itself.
_CLONES = (
    b"\x02\0\0\0"
    b"\x02\x01\x1c\0\0\0\x03\0\0\0\0\0\0\0\x0c\0\0\x0010187e7f6893\0\0\0\0"
    b"\x02\x01\x1c\0\0\0\x03\0\0\0\0\0\0\0\x0c\0\0\x001018efb2304f\0\0\0\0"
)
_NO_PARENT = (
    b"\x01\x01\x18\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"
    b"\0\0\0\0\0\0\0\0\xfe\xff\xff\xff\xff\xff\xff\xff"
)
_PARENT = (
    b"\x01\x01(\0\0\0\x03\0\0\0\0\0\0\0\x04\0\0\0team"
    b"\x0c\0\0\x001018b0dea90d1\0\0\0\0\0\0\0"
)
_LOCKED = (
    b"\x01\x01m\0\0\0\x01\0\0\0"
    b"\x01\x01!\0\0\0\x08\x18\x10\0\0\0\0\0\0\x14\0\0\0auto 140506231304016"
    b"\x01\x01/\0\0\0\0\0\0\0\0\0\0\0\x01\x01\x01\x1c\0\0\0\x01\0\0\0"
    b"@\x91]3\x10\0\0\0\x02\0\0\0\x7f\0\0\x01\0\0\0\0\0\0\0\0"
    b"\0\0\0\0\x01\x08\0\0\0internal"
)
_TIME = b'\xad"\rkb\xaf\xe8:'
# The same, from a Ceph 16 and a Ceph 20 (auth/Crypto.cc).
_KEY = b"\x01\0\x8d\x1a\x0bj\xd0\x04\x9c\x11\x10\0" + bytes(16)
_LONG_KEY = b"\x02\0\x8d\x1a\x0bj\xd0\x04\x9c\x11\x20\0" + bytes(32)


@pytest.mark.parametrize(
    ("read", "stored", "value"),
    [
        (layouts.decoded, b"\x0c\0\0\x001018b0dea90d", _ID),
        (layouts.decoded, b"\x03\0\0\0two", "two"),
        (layouts.size_and_order, b"\x14\0\0@\0\0\0\0\0", (4 << 20, 20)),
        (layouts.features, b"?\x01\0\0\0\0\0\0?\x01\0\0\0\0\0\0", 0x13F),
        (
            layouts.snap_ids,
            b"1\0\0\0\0\0\0\0\x02\0\0\x001\0\0\0\0\0\0\x000\0\0\0\0\0\0\0",
            (49, 48),
        ),
        (layouts.snap_ids, bytes(12), ()),
        (layouts.parent_spec, _NO_PARENT, None),
        (layouts.parent_spec, _PARENT, (3, "team", _ID)),
        (
            layouts.clone_specs,
            _CLONES,
            [(3, "", "10187e7f6893"), (3, "", "1018efb2304f")],
        ),
        (
            layouts.utime,
            _TIME,
            datetime.datetime(2026, 11, 30, 7, 15, 57, tzinfo=datetime.UTC),
        ),
        (layouts.lockers, _LOCKED, [(4120, "auto 140506231304016")]),
        (
            layouts.striping,
            {
                "stripe_count": b"\x02\0\0\0\0\0\0\0",
                "stripe_unit": b"\0\0\x01\0\0\0\0\0",
            },
            (1 << 16, 2),
        ),
        (layouts.striping, {}, (None, None)),
        (
            layouts.time_of_clock,
            b'\x01\x01\x08\0\0\0\xae"\rkH\xe4\xc7\n',
            1796022958.180872264,
        ),
        (layouts.name_of_key, "name_disk", "disk"),
        (layouts.name_of_key, "name_name_disk", "name_disk"),
        (layouts.metadata_of_key, "metadata_key", "key"),
        (layouts.lease_of_xattr, "lock.purge", "purge"),
    ],
)
def test_reads(read, stored, value):
    assert read(stored) == value


@pytest.mark.parametrize(
    ("write", "values", "stored"),
    [
        (layouts.encoded, (_ID,), b"\x0c\0\0\x001018b0dea90d"),
        (layouts.encoded, ("ä",), b"\x02\0\0\0\xc3\xa4"),
        (layouts.snap_id, (layouts.HEAD,), b"\xfe" + b"\xff" * 7),
        (layouts.snap_id, (49,), b"1\0\0\0\0\0\0\0"),
        (
            layouts.directory_entries,
            ("disk", _ID),
            {
                "name_disk": b"\x0c\0\0\x001018b0dea90d",
                "id_1018b0dea90d": b"\x04\0\0\0disk",
            },
        ),
        (
            layouts.listed,
            ("disk", "1a"),
            b"\x04\0\0\0disk\x02\0\0\x001a",
        ),
        (
            layouts.renamed,
            ("old", "new", "1a"),
            b"\x03\0\0\0old\x03\0\0\0new\x02\0\0\x001a",
        ),
        (
            layouts.metadata,
            ({"k": "v", "a": "bc"},),
            b"\x02\0\0\0\x01\0\0\0k\x01\0\0\0v\x01\0\0\0a\x02\0\0\0bc",
        ),
        (
            layouts.lock_of,
            ("rbd_lock",),
            b"\x01\x01\x0c\0\0\0\x08\0\0\0rbd_lock",
        ),
        (
            layouts.break_lock,
            ("rbd_lock", 4711, "auto 1"),
            b"\x01\x01\x1f\0\0\0\x08\0\0\0rbd_lock"
            b"\x08g\x12\0\0\0\0\0\0\x06\0\0\0auto 1",
        ),
        (
            layouts.assert_locked,
            ("a lease", "c"),
            b"\x01\x01\x15\0\0\0\x07\0\0\0a lease\x01\x01\0\0\0c\0\0\0\0",
        ),
        (layouts.end_of_move, ("1a",), b"\x02\0\0\x001a\0\x01"),
        (layouts.begin_of_move, ("1a",), b"\x02\0\0\x001a\x01\0"),
        (layouts.clock, (), b"\x01\x01\0\0\0\0"),
        (
            layouts.no_operation,
            (),
            "\x01\x01\x04\0\0\0\x7f\x7f\x7f\x7f",
        ),
        (layouts.header, (_ID,), f"rbd_header.{_ID}"),
        (layouts.id_object, ("disk",), "rbd_id.disk"),
        (layouts.id_by_name, ("disk",), "name_disk"),
        (layouts.name_by_id, (_ID,), f"id_{_ID}"),
        (layouts.metadata_key, ("key",), "metadata_key"),
        (layouts.time_key, ("create",), "create_timestamp"),
        (layouts.mirror_key, (_ID,), f"image_{_ID}"),
        (layouts.lease_xattr, ("purge",), "lock.purge"),
    ],
)
def test_writes(write, values, stored):
    assert write(*values) == stored


@pytest.mark.parametrize(("key", "number"), [(_KEY, 1), (_LONG_KEY, 2)])
def test_keys(key, number):
    """A key of Ceph 16 and an aes256k key, which Ceph 20 makes."""
    assert layouts.key_type(key) == number
    assert layouts.key_type(key + b"\n") is None
    assert layouts.key_type(key[:-1]) is None


@pytest.mark.parametrize("value", [b"", b"swordfish", _KEY[:12]])
def test_no_keys(value):
    assert layouts.key_type(value) is None
