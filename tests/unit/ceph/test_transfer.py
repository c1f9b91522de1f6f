# SPDX-License-Identifier: Apache-2.0

import os

import pytest

from nova_rbd_backend.ceph import transfer

K64 = 64 << 10
DATA = b"\x01"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (bytes(3 * K64), []),
        (bytes(5), []),
        (DATA * 5, [(0, 5)]),
        (DATA + bytes(2 * K64), [(0, K64)]),
        (bytes(K64) + DATA + bytes(K64), [(K64, K64)]),
        (bytes(K64) + DATA, [(K64, 1)]),
        (
            DATA * K64 + bytes(K64) + DATA * 2 * K64,
            [(0, K64), (2 * K64, 2 * K64)],
        ),
    ],
)
def test_nonzero_runs(data, expected):
    runs = list(transfer.nonzero_runs(data))
    assert [(offset, len(run)) for offset, run in runs] == expected
    rebuilt = bytearray(len(data))
    for offset, run in runs:
        rebuilt[offset : offset + len(run)] = run
    assert rebuilt == data


def test_pieces_do_not_cross_objects():
    pieces = list(transfer._pieces([(3, 5), (8, 1), (10, 9)], 4))
    assert pieces == [(3, 1), (4, 4), (8, 1), (10, 2), (12, 4), (16, 3)]


def test_holes_of_a_file_are_not_read(tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 30)
        file.seek(100 << 20)
        file.write(DATA * 4096)
    with path.open("rb") as file:
        found = list(transfer.data_ranges(file.fileno(), 1 << 30))
    assert sum(length for _, length in found) <= 1 << 20
    assert any(start <= 100 << 20 < start + size for start, size in found)


def test_file_without_holes_is_one_range(tmp_path):
    path = tmp_path / "dense"
    path.write_bytes(DATA * 10000)
    with path.open("rb") as file:
        found = list(transfer.data_ranges(file.fileno(), 10000))
    assert found == [(0, 10000)]


def test_the_first_error_ends_the_work():
    done = []

    def work(offset, length):
        done.append(offset)
        if offset == 3:
            raise OSError(5, "disk full")
        return length

    pieces = iter([(n, 1) for n in range(10000)])
    with pytest.raises(OSError, match="disk full"):
        transfer._in_parallel(work, pieces, 2, None)
    assert len(done) < 10000


def test_progress_callback_can_cancel():
    def cancel(done_bytes):
        raise KeyboardInterrupt

    def work(offset, length):
        os.sched_yield()
        return length

    pieces = iter([(n, 1) for n in range(100000)])
    with pytest.raises(KeyboardInterrupt):
        transfer._in_parallel(work, pieces, 2, cancel)
