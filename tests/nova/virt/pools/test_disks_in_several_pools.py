# SPDX-License-Identifier: Apache-2.0

"""Disks in several pools: where they are made, and that they are found.

The class ``fast`` has the pool ``snapshots``, which Nova's user may use.
"""

import functools
import types
import uuid

import pytest
import rbd as rbd_

from tests.nova.images import GIB, MIB, cache, fetcher, generated, never, rbd
from tests.support.clients import connect

FAST = {"nova_rbd:class": "fast"}


def started():
    """Read and add pools as nova-compute does at its start."""
    from nova_rbd_backend.virt import edge

    edge.store().start()


def new_instance(extra_specs, vm_state="building"):
    return types.SimpleNamespace(
        uuid=str(uuid.uuid4()),
        project_id="p" * 32,
        vm_state=vm_state,
        task_state=None,
        host=None,
        flavor=types.SimpleNamespace(name="some", extra_specs=extra_specs),
    )


def where(pools, instance):
    """Return the pool of each of the instance's disks."""
    return {
        name.removeprefix(f"{instance.uuid}_"): pool
        for pool in ("vms", "snapshots")
        for name in pools.vms.beside(pool).directory.names(instance.uuid)
    }


def facts(pools, pool, instance, disk):
    with pools.vms.beside(pool).open(f"{instance.uuid}_{disk}") as found:
        return found.metadata(), found.size_bytes()


def make_all(instance):
    cache(rbd(instance), never)
    generated(rbd(instance, "disk.eph0"), 8 * MIB, ephemeral_size=1)
    generated(rbd(instance, "disk.swap"), 4 * MIB, swap_mb=4)


@pytest.mark.parametrize(
    ("specs", "expected"),
    [
        ({}, ("vms", "vms", "vms")),
        (FAST, ("snapshots", "snapshots", "snapshots")),
        ({"nova_rbd:class": "default"}, ("vms", "vms", "vms")),
        ({"nova_rbd:root_class": "fast"}, ("snapshots", "vms", "vms")),
        (
            {
                "nova_rbd:class": "fast",
                "nova_rbd:ephemeral_class": "default",
                "nova_rbd:swap_class": "default",
            },
            ("snapshots", "vms", "vms"),
        ),
    ],
)
def test_flavor_chooses_the_pools(
    pools, classes, glance, parent, specs, expected
):
    glance(urls=(parent,))
    instance = new_instance(specs)
    make_all(instance)

    found = where(pools, instance)

    for disk, pool in zip(
        ("disk", "disk.eph0", "disk.swap"), expected, strict=True
    ):
        assert found[disk] == pool
        said, _ = facts(pools, pool, instance, disk)
        name = "fast" if pool == "snapshots" else "default"
        assert said["nova.class"] == name
        assert rbd(instance, disk).path.startswith(f"rbd:{pool}/")
        assert rbd(instance, disk).exists()


def test_default_class_of_flavors_that_ask_for_none(
    pools, classes, glance, parent
):
    glance(urls=(parent,))
    pools.conf(group="nova_rbd", default_storage_class="fast")
    instance = new_instance({})
    cache(rbd(instance), never)
    assert where(pools, instance) == {"disk": "snapshots"}


def test_base_and_disk_have_the_options_of_their_class(pools, classes, glance):
    pools.conf(group="nova_rbd_class_fast", object_size=MIB)
    glance(disk_format="qcow2")
    instance, image_id = new_instance(FAST), str(uuid.uuid4())
    cache(rbd(instance), fetcher(b"fetched", []), image_id=image_id)

    fast = pools.vms.beside("snapshots")
    (base,) = fast.directory.names(f"nova-base_{image_id}")
    assert pools.vms.directory.names(f"nova-base_{image_id}") == []
    for name in (base, f"{instance.uuid}_disk"):
        with fast.open(name) as disk:
            assert disk.layout().object_bytes == MIB


def test_two_classes_on_one_pool(pools, classes, glance, parent):
    classes(small="vms")
    pools.conf(
        group="nova_rbd_class_small", image_conf={"rbd_qos_iops_limit": "7"}
    )
    glance(urls=(parent,))
    for specs, expected in (({}, None), ({"nova_rbd:class": "small"}, "7")):
        instance = new_instance(specs)
        cache(rbd(instance), never)
        said, _ = facts(pools, "vms", instance, "disk")
        assert said.get("conf_rbd_qos_iops_limit") == expected


def test_resize_leaves_disks_where_they_are(pools, classes, glance, parent):
    glance(urls=(parent,))
    instance = new_instance({})
    make_all(instance)
    instance.vm_state = "active"
    instance.flavor.extra_specs = FAST

    cache(rbd(instance), never, size=2 * GIB)
    generated(rbd(instance, "disk.eph0"), 8 * MIB, ephemeral_size=1)
    generated(rbd(instance, "disk.swap"), 8 * MIB, swap_mb=8)

    assert where(pools, instance) == {
        "disk": "vms",
        "disk.eph0": "vms",
        "disk.swap": "snapshots",  # made anew, since it is bigger
    }
    assert facts(pools, "vms", instance, "disk")[1] == 2 * GIB


def test_config_drive_is_made_anew_in_its_class(pools, classes, tmp_path):
    drive = tmp_path / "drive"
    drive.write_bytes(b"x" * 4096)
    instance = new_instance({})
    rbd(instance, "disk.config").import_file(
        instance, str(drive), "disk.config"
    )
    instance.flavor.extra_specs = FAST
    rbd(instance, "disk.config").import_file(
        instance, str(drive), "disk.config"
    )
    assert where(pools, instance) == {"disk.config": "snapshots"}


def test_delete_finds_the_disks_in_all_pools(pools, classes, glance, parent):
    from nova_rbd_backend.virt import edge

    glance(urls=(parent,))
    instance = new_instance({"nova_rbd:swap_class": "fast"})
    make_all(instance)
    assert set(where(pools, instance).values()) == {"vms", "snapshots"}
    reports = edge.store().delete(instance.uuid)

    assert where(pools, instance) == {}
    assert len(reports["vms"].deleted) == 2
    assert len(reports["snapshots"].deleted) == 1
    edge.store().purge()
    for pool in ("vms", "snapshots"):
        names = [t.name for t in pools.vms.beside(pool).trash.entries()]
        assert not [name for name in names if instance.uuid in name]


def test_nova_is_told_of_a_disk_that_is_busy(
    ceph, pools, classes, driver, monkeypatch
):
    """The disks in the pools after it are deleted nevertheless."""
    from nova import exception

    from nova_rbd_backend.storage import store

    impatient = functools.partial(
        store.delete.delete_disks, busy_limit_seconds=1
    )
    monkeypatch.setattr(store.delete, "delete_disks", impatient)
    instance = new_instance({})
    name = f"{instance.uuid}_disk"
    pools.vms.create(name, MIB)
    pools.vms.beside("snapshots").create(f"{name}.swap", MIB)
    # Another client than the driver's.
    other = connect(ceph, connect_timeout_seconds=14)
    with rbd_.Image(other.connection().ioctx("vms", ""), name) as disk:
        disk.lock_acquire(rbd_.RBD_LOCK_MODE_EXCLUSIVE)
        with pytest.raises(exception.StorageError) as caught:
            driver._cleanup_rbd(instance)
    assert f"vms/{name}" in str(caught.value)
    assert where(pools, instance) == {"disk": "vms"}
    driver._cleanup_rbd(instance)
    assert where(pools, instance) == {}


def test_half_made_disk_in_another_pool_goes_with_the_instance(pools, classes):
    from nova_rbd_backend.storage import journal
    from nova_rbd_backend.virt import edge

    instance = new_instance(FAST)
    fast = pools.vms.beside("snapshots")
    entry = journal.begin_creation(fast, f"{instance.uuid}_disk")
    fast.create(entry.draft, MIB)
    edge.store().delete(instance.uuid)
    assert where(pools, instance) == {}
    assert journal.creations(fast, instance.uuid) == []


def test_class_that_was_removed_from_nova_conf(pools, classes, glance, parent):
    from nova import exception

    glance(urls=(parent,))
    instance = new_instance(FAST)
    cache(rbd(instance), never)
    instance.vm_state = "active"

    classes()
    started()

    image = rbd(instance)
    assert image.exists()
    assert image.path.startswith("rbd:snapshots/")
    cache(image, never, size=2 * GIB)
    assert facts(pools, "snapshots", instance, "disk")[1] == 2 * GIB
    with pytest.raises(exception.InvalidInput, match="class 'fast'"):
        generated(rbd(instance, "disk.swap"), 4 * MIB, swap_mb=4)
    assert where(pools, instance) == {"disk": "snapshots"}


def test_class_that_only_another_host_has(pools, classes, glance, parent):
    """An instance that comes here must not get a second, empty disk."""
    glance(urls=(parent,))
    instance = new_instance(FAST)
    cache(rbd(instance), never)
    instance.vm_state = "active"
    instance.flavor.extra_specs = {}

    classes()  # and this host has not read which pools the other host added

    image = rbd(instance)
    cache(image, never, size=2 * GIB)
    assert where(pools, instance) == {"disk": "snapshots"}
    assert image.path.startswith("rbd:snapshots/")


def test_unknown_class_is_refused(pools, classes, glance, parent):
    from nova import exception

    from nova_rbd_backend.virt.pools import choice

    glance(urls=(parent,))
    instance = new_instance({"nova_rbd:swap_class": "slow"})
    with pytest.raises(exception.InvalidInput) as caught:
        choice.require_classes(instance)
    line = str(caught.value)
    assert "flavor some asks for storage class 'slow'" in line
    assert "[nova_rbd] storage_classes (here: default, fast)" in line
    instance = new_instance({"nova_rbd:class": "slow"})
    assert not rbd(instance).exists()
    with pytest.raises(exception.InvalidInput):
        cache(rbd(instance), never)
    assert where(pools, instance) == {}


def test_one_pool_costs_no_more_requests(
    pools, new_compute, glance, parent, monkeypatch
):
    """Without classes Ceph gets the same requests as before they existed."""
    from nova_rbd_backend.ceph import access
    from nova_rbd_backend.storage import registry, store

    for owner, name in (
        (registry, "names"),
        (registry, "add"),
        (store.Store, "pool_of"),
        (store.Store, "pool_of_unknown"),
    ):
        monkeypatch.delattr(owner, name)
    glance(urls=(parent,))
    instance = new_instance({})
    make_all(instance)
    assert set(where(pools, instance).values()) == {"vms"}

    requests = []
    reach = access.Access.reach

    def counted(self, operation, *args, **kwargs):
        requests.append(operation)
        return reach(self, operation, *args, **kwargs)

    monkeypatch.setattr(access.Access, "reach", counted)
    assert not rbd(instance, "disk.other").exists()
    assert requests == ["read an entry"]


def test_pool_that_no_longer_exists_is_forgotten(pools, classes):
    from nova_rbd_backend.storage import registry

    registry.add(pools.vms, "no-such-pool", "old")
    started()
    assert registry.names(pools.vms) == ("snapshots",)


def test_pool_that_may_not_be_read_stops_the_start(pools, classes):
    from nova_rbd_backend import errors
    from nova_rbd_backend.storage import registry

    registry.add(pools.vms, "volumes", "old")
    with pytest.raises(errors.ConfigError) as caught:
        started()
    assert "in pool 'volumes'" in str(caught.value)
    assert "rmomapkey nova_rbd_pools volumes" in str(caught.value)


def test_pool_removed_while_nova_compute_runs(pools, classes, driver):
    """A former class may lose its pool; a class in nova.conf may not."""
    from nova import exception

    from nova_rbd_backend.storage import registry
    from nova_rbd_backend.virt import edge

    registry.add(pools.vms, "no-such-pool", "old")
    edge.store().read_pools()
    assert "no-such-pool" in edge.store().pool_names()
    edge.store().delete(str(uuid.uuid4()))
    assert "no-such-pool" not in edge.store().pool_names()

    classes(old="no-such-pool")
    with pytest.raises(exception.StorageError, match="no-such-pool"):
        driver._cleanup_rbd(new_instance({}))
