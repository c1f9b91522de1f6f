import json

from nova_rbd_backend.storage import journal


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
