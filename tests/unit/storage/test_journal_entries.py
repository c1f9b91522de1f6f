# SPDX-License-Identifier: Apache-2.0

import dataclasses
import json

from nova_rbd_backend.storage import journal, process


def test_entry_is_read_as_it_is_written():
    entry = journal._stamped(
        "delete", "a_disk", image_id="1f", own_snaps=("nova-resize",)
    )
    assert journal.Entry.decoded(entry.stored.encode()) == entry
    assert entry.key == "delete_1f"
    assert entry.host
    assert entry.pid
    assert 0 <= entry.age_seconds < 60


def test_entry_of_a_later_version_is_understood():
    value = {"operation": "create", "draft": "a_disk.x", "colour": "red"}
    value["image"] = "a_disk"
    entry = journal.Entry.decoded(json.dumps(value).encode())
    assert entry.key == "create_a_disk.x"
    assert "red" in entry.stored


def test_same_clock_tick_is_not_the_same_process():
    """Another process that began in the same tick may still be at work.

    It may be on another host or on this one.
    """
    entry = journal._stamped("create", "a_disk", draft="a_disk.x")
    assert entry.writer == process.this_process()
    for other in (
        dataclasses.replace(entry, host="other"),
        dataclasses.replace(entry, pid=entry.pid + 1),
    ):
        assert other.writer != process.this_process()
    elsewhere = dataclasses.replace(entry, host="other")
    assert not journal.is_abandoned(None, elsewhere)
