# SPDX-License-Identifier: Apache-2.0

"""An image is written while its bytes come, and is whole or not there."""

import random
import threading
import uuid

import pytest

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph import transfer
from nova_rbd_backend.ceph.incoming import PIECE_BYTES, Incoming
from nova_rbd_backend.storage.bases import make as bases

MIB = 1 << 20
CONTENT = (
    random.Random(16).randbytes(5 * MIB)
    + bytes(20 * MIB)
    + random.Random(17).randbytes(3 * MIB + 5)
)


@pytest.fixture
def name():
    return names.base_image(str(uuid.uuid4()), "")


@pytest.fixture
def made(pool, name):
    """Return a function that makes a base of what another thread puts."""

    def make(put, progress=None, more=0):
        incoming, faults = Incoming(len(CONTENT) + more), []

        def come():
            try:
                put(incoming)
            except errors.Error as fault:
                faults.append(fault)

        making = bases.begin(pool, name)
        thread = threading.Thread(target=come, daemon=True)
        thread.start()
        try:
            bases.finish(pool, making, incoming, {}, progress, workers=3)
        finally:
            thread.join(30)
            assert not thread.is_alive()
            left = pool.directory.names(name)
            assert left == ([name] if bases.size_bytes(pool, name) else [])
        assert faults == []

    return make


def put_all(incoming):
    for offset in range(0, len(CONTENT), PIECE_BYTES):
        incoming.put(CONTENT[offset : offset + PIECE_BYTES])


def put_for_ever(incoming):
    while True:
        incoming.put(b"")


def test_whole(pool, name, made):
    def put(incoming):
        put_all(incoming)
        incoming.end()

    told = []
    made(put, told.append)
    with pool.open(name) as base:
        assert base.size_bytes() == len(CONTENT)
        assert base.read(0, len(CONTENT)) == CONTENT
        assert sum(length for _, length in base.extents()) <= 16 * MIB
    assert told[-1] == len(CONTENT)


@pytest.mark.parametrize("count", [0, 3, 100])
def test_fault_after_some_pieces(pool, name, made, count):
    def put(incoming):
        for offset in range(0, len(CONTENT), PIECE_BYTES)[:count]:
            incoming.put(CONTENT[offset : offset + PIECE_BYTES])
        incoming.fail(ValueError("the hash is wrong"))

    with pytest.raises(ValueError, match="the hash is wrong"):
        made(put)
    assert bases.size_bytes(pool, name) is None


@pytest.mark.parametrize("other", [-1, 1])
def test_another_number_of_bytes(other):
    incoming = Incoming(5)

    def put():
        incoming.put(bytes(5 + other))
        incoming.end()

    with pytest.raises(errors.SizeMismatch, match=f"{5 + other} bytes have"):
        put()


def test_writer_that_gives_up_ends_the_putting(pool, name, made):
    """Even if more comes than may wait, and nobody takes it any more."""
    given_up = threading.Event()

    def progress(_done):
        given_up.set()
        raise errors.TakenOver("the lease is lost")

    def put(incoming):
        put_all(incoming)
        assert given_up.wait(30)
        with pytest.raises(errors.Conflict, match="not written any more"):
            put_for_ever(incoming)

    with pytest.raises(errors.TakenOver):
        made(put, progress, more=1)


def test_fault_of_ceph_ends_the_putting(pool, name, made, monkeypatch):
    def refuse(*_arguments):
        raise errors.NoSpace("it is full")

    monkeypatch.setattr(transfer, "_write_runs", refuse)

    def put(incoming):
        with pytest.raises(errors.Conflict, match="not written any more"):
            put_for_ever(incoming)

    with pytest.raises(errors.NoSpace):
        made(put)
    assert bases.size_bytes(pool, name) is None
