# SPDX-License-Identifier: Apache-2.0

"""The record of a conversion, when the host loses its power."""

import os

import pytest

from nova_rbd_backend.convert import record

RECORD = record.Record("uuid", "vms", record.Stage.MIRRORING, ())


class Device:
    """What a folder has after a power loss, if nothing else is synced.

    :ivar data: by inode
    :ivar names: those of the folder, and their inodes
    """

    def __init__(self, folder):
        self.folder = folder
        self.data = {}
        self.names = {}

    def sync(self, fd):
        found = os.fstat(fd).st_ino
        if found == self.folder.stat().st_ino:
            self.names = {
                path.name: path.stat().st_ino for path in self.folder.iterdir()
            }
        else:
            self.data[found] = next(
                path.read_bytes()
                for path in self.folder.iterdir()
                if path.stat().st_ino == found
            )

    def read(self):
        """Read the record after a power loss; None: there is none."""
        found = self.names.get(record.NAME)
        return None if found is None else self.data.get(found, b"")


@pytest.fixture
def device(tmp_path, monkeypatch):
    made, real = Device(tmp_path), os.fsync

    def fsync(fd):
        real(fd)
        made.sync(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    return made


def test_record_outlives_a_power_loss(device, tmp_path):
    assert device.read() is None
    record.write(str(tmp_path), RECORD)
    assert device.read() == (tmp_path / record.NAME).read_bytes()
    assert record.read(str(tmp_path)) == RECORD


def test_record_is_never_half_written(device, tmp_path, monkeypatch):
    """The content is on the disk before it has the record's name."""
    record.write(str(tmp_path), RECORD)
    before, real = device.read(), os.rename

    def rename(old, new):
        real(old, new)
        # The names may be on the disk at any time from now on.
        record.sync(str(tmp_path))
        assert device.read() not in (b"", before)

    monkeypatch.setattr(os, "rename", rename)
    record.write(
        str(tmp_path), record.Record("uuid", "vms", record.Stage.CONVERTED, ())
    )
    assert b"converted" in device.read()


def test_removed_record_stays_removed(device, tmp_path):
    record.write(str(tmp_path), RECORD)
    for _ in range(2):
        record.remove(str(tmp_path))
        assert device.read() is None
    assert record.read(str(tmp_path)) is None
