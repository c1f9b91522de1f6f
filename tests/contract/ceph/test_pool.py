# SPDX-License-Identifier: Apache-2.0

"""What any pool must do."""

import pytest

from nova_rbd_backend import errors

MIB = 1 << 20


def test_names_are_found_by_prefix(pool, instance):
    for disk in ("disk", "disk.eph0"):
        pool.create(f"{instance}_{disk}", MIB)
    pool.create(f"x{instance}_disk", MIB)
    assert pool.directory.names(f"{instance}_") == [
        f"{instance}_disk",
        f"{instance}_disk.eph0",
    ]
    assert pool.directory.names("no-such-prefix") == []


def test_omap_that_is_longer_than_one_answer(pool, instance):
    keys = [f"{instance}{n:04}" for n in range(1203)]
    for key in keys:
        assert pool.objects.omap_swap("big", key, None, "v")
    assert sorted(pool.objects.omap_get("big", instance)) == keys


def test_create(pool, instance):
    assert not pool.directory.exists(instance)
    assert pool.directory.image_id(instance) is None
    pool.create(instance, 3 * MIB)
    assert pool.directory.exists(instance)
    image_id = pool.directory.image_id(instance)
    assert pool.headers.size_bytes(image_id) == 3 * MIB
    with pool.open(instance) as disk:
        assert disk.image_id == image_id
        assert disk.size_bytes() == 3 * MIB
    with pytest.raises(errors.ImageExists) as caught:
        pool.create(instance, MIB)
    assert (caught.value.pool, caught.value.image) == ("vms", instance)


def test_clone(pool, parent, instance):
    parent_pool = pool.beside(parent.pool)
    pool.clone(parent_pool, parent.image, parent.snap, instance)
    with pool.open(instance, read_only=False) as disk:
        assert disk.parent() == parent
        assert disk.read(4096, 4) == b"base"
        disk.flatten()
        disk.flatten()
        assert disk.parent() is None
        assert disk.read(4096, 4) == b"base"
    with pytest.raises(errors.ImageExists):
        pool.clone(parent_pool, parent.image, parent.snap, instance)


@pytest.mark.parametrize(
    ("image", "snap", "expected"),
    [
        ("nope", "snap", errors.ImageNotFound),
        (None, "nope", errors.SnapNotFound),
    ],
)
def test_clone_of_a_missing_parent(
    pool, parent, instance, image, snap, expected
):
    image = image or parent.image
    with pytest.raises(expected) as caught:
        pool.clone(pool.beside("images"), image, snap, instance)
    error = caught.value
    assert (error.pool, error.image, error.snap) == ("images", image, snap)
    assert not pool.directory.exists(instance)


def test_open_what_is_not_there(pool, instance):
    with pytest.raises(errors.ImageNotFound), pool.open(instance):
        pass
    pool.create(instance, MIB)
    with (
        pytest.raises(errors.SnapNotFound) as caught,
        pool.open(instance, snap="nope"),
    ):
        pass
    assert caught.value.snap == "nope"


def test_remove(pool, instance):
    pool.remove(instance)
    pool.create(instance, MIB)
    with pool.open(instance, read_only=False) as disk:
        disk.create_snap("s")
    with pytest.raises(errors.HasSnaps):
        pool.remove(instance)
    with pool.open(instance, read_only=False) as disk:
        disk.remove_snap("s")
    pool.remove(instance)
    assert not pool.directory.exists(instance)


def test_trash(pool, instance):
    with pytest.raises(errors.ImageNotFound):
        pool.trash.move(instance)
    pool.create(instance, MIB)
    image_id = pool.directory.image_id(instance)
    assert pool.trash.get(image_id) is None
    pool.trash.move(instance)
    assert not pool.directory.exists(instance)
    assert pool.trash.get(image_id).name == instance
    assert image_id in [entry.image_id for entry in pool.trash.entries()]
    with pool.open(image_id=image_id) as disk:
        assert disk.size_bytes() == MIB
    pool.create(instance, MIB)
    pool.trash.remove(image_id)
    with pytest.raises(errors.ImageNotFound):
        pool.trash.remove(image_id)
    assert pool.trash.get(image_id) is None


def test_restore(pool, instance):
    pool.create(instance, MIB)
    image_id = pool.directory.image_id(instance)
    pool.trash.move(instance)
    pool.create(instance, MIB)
    taken_by = pool.directory.image_id(instance)
    with pytest.raises(errors.ImageExists):
        pool.trash.restore(image_id, instance)
    assert pool.trash.get(image_id).name == instance
    assert pool.directory.image_id(instance) == taken_by
    pool.trash.restore(image_id, f"{instance}.again")
    assert pool.directory.listed_name(image_id) == f"{instance}.again"
    assert pool.directory.listed_id(f"{instance}.again") == image_id
    for gone in (image_id, "no-id"):
        with pytest.raises(errors.ImageNotFound):
            pool.trash.restore(gone, f"{instance}.other")
    assert not pool.directory.exists(f"{instance}.other")


def test_trash_keeps_an_image_for_its_retention(pool, instance):
    pool.create(instance, MIB)
    image_id = pool.directory.image_id(instance)
    pool.trash.move(instance, 3600)
    with pytest.raises(errors.NotPermitted):
        pool.trash.remove(image_id)
    pool.trash.remove(image_id, force=True)
    assert pool.trash.get(image_id) is None


def test_trash_takes_an_open_image_with_snaps(pool, instance):
    pool.create(instance, MIB)
    image_id = pool.directory.image_id(instance)
    with pool.open(instance, read_only=False) as disk:
        disk.create_snap("s")
        pool.trash.move(instance)
        with pytest.raises(errors.HasSnaps):
            pool.trash.remove(image_id)
        disk.remove_snap("s")
        with pytest.raises(errors.DiskBusy):
            pool.trash.remove(image_id)
    pool.trash.remove(image_id)


def test_omap_swap_requires_the_old_value(pool, instance):
    swap, value = pool.objects.omap_swap, pool.objects.omap_value
    assert value("entries", instance) is None
    assert swap("entries", instance, None, "one")
    assert not swap("entries", instance, None, "two")
    assert not swap("entries", instance, "two", None)
    assert value("entries", instance) == b"one"
    assert swap("entries", instance, "one", "two")
    assert swap("entries", instance, "two", None)
    assert value("entries", instance) is None
    assert swap("entries", instance, None, "")
    assert value("entries", instance) == b""
    assert pool.objects.omap_get("entries", instance) == {instance: b""}
    assert value("no-such-object", instance) is None
    assert pool.objects.omap_get("no-such-object", "") == {}


def test_pool_path(pool):
    assert str(pool) == "vms"
    assert str(pool.beside("vms", "ns")) == "vms/ns"


def test_snap_size_is_not_the_size_of_the_head(pool, instance):
    pool.create(instance, 3 * MIB)
    for snap, size_bytes in (("first", 4 * MIB), ("second", 5 * MIB)):
        with pool.open(instance, read_only=False) as disk:
            disk.create_snap(snap)
            disk.resize(size_bytes)
    assert pool.snap_size_bytes(instance, "first") == 3 * MIB
    assert pool.snap_size_bytes(instance, "second") == 4 * MIB
    with pytest.raises(errors.SnapNotFound):
        pool.snap_size_bytes(instance, "third")
    with pytest.raises(errors.ImageNotFound):
        pool.snap_size_bytes(f"{instance}.not-there", "first")
