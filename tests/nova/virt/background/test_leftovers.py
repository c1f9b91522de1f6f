# SPDX-License-Identifier: Apache-2.0

"""Disks of instances that Nova's API deleted while their host was away.

Nova's database, its objects and its periodic task are real.
"""

import dataclasses
import functools
import types
import uuid

import pytest

from tests.nova.images import MIB
from tests.support.clients import Client, inactive

HERE = "here"


@pytest.fixture
def database(driver, nova_conf, monkeypatch):
    """Nova's database of a cell, empty."""
    # nova.tests has eventlet replace all threads: in 26 nova.monkey_patch does
    # so when it is imported, in 34 its patch() does.
    monkeypatch.setenv("OS_NOVA_DISABLE_EVENTLET_PATCHING", "1")
    monkeypatch.setattr("nova.monkey_patch.patch", lambda: None, raising=False)
    from nova.tests import fixtures

    nova_conf(group="database", connection="sqlite://")
    with fixtures.Database():
        yield


@pytest.fixture
def nothing_runs(monkeypatch):
    """No background work begins by itself."""
    from nova_rbd_backend.virt.background import worker

    monkeypatch.setattr(worker.Background, "start", lambda self: None)


@pytest.fixture
def compute(driver, database, nothing_runs, pools, caplog):
    caplog.set_level("INFO")
    pools.conf(host=HERE)
    made = Compute(driver, pools.vms)
    yield made
    made.clean_up()


class Compute:
    """A nova-compute, with the instances that its host is building."""

    def __init__(self, driver, pool):
        self.driver = driver
        self.pool = pool
        self.made = []

    def instance(self, host=HERE):
        """Return an instance that is being built here."""
        from nova import context, objects

        made = objects.Instance(
            context.get_admin_context(),
            uuid=str(uuid.uuid4()),
            project_id="p" * 32,
            user_id="u",
            host=host,
            vm_state="building",
            task_state="spawning",
            flavor=objects.Flavor(
                flavorid="1", memory_mb=1, vcpus=1, root_gb=1, extra_specs={}
            ),
            system_metadata={},
        )
        made.create()
        self.made.append(made.uuid)
        return made

    def dies_while_it_spawns(self, instance, monkeypatch):
        """Make the root disk, and leave all else to the next process."""
        from nova_rbd_backend.storage import journal

        class Died(BaseException):
            pass

        def spawn(*_args, **_kwargs):
            self.pool.create(f"{instance.uuid}_disk", MIB)
            raise Died

        with monkeypatch.context() as patch:
            patch.setattr(
                "nova.virt.libvirt.driver.LibvirtDriver.spawn", spawn
            )
            with pytest.raises(Died):
                self.driver.spawn(None, instance, None, [], "", {})
        return [
            each
            for each in journal.spawns(self.pool)
            if each.image == instance.uuid
        ]

    def became(self, entry, **changes):
        """Change an entry of the journal; return it as it is now."""
        from nova_rbd_backend.storage import journal

        changed = dataclasses.replace(entry, **changes).encoded()
        assert self.pool.objects.omap_swap(
            journal.OBJECT, entry.key, entry.stored, changed.stored
        )
        return changed

    def run_pending_deletes(self):
        from nova import context
        from nova.compute import manager

        manager.ComputeManager._run_pending_deletes(
            types.SimpleNamespace(driver=self.driver),
            context.get_admin_context(),
        )

    def disks(self, instance):
        return self.pool.directory.names(instance.uuid)

    def clean_up(self):
        from nova_rbd_backend.storage import journal
        from nova_rbd_backend.storage.disks import delete
        from nova_rbd_backend.storage.images import purge

        for instance_uuid in self.made:
            delete.delete_disks(self.pool, instance_uuid)
        for entry in journal.spawns(self.pool):
            journal.end(self.pool, entry)
        purge.purge(self.pool)


def settle():
    from nova_rbd_backend.virt.background import leftovers

    return leftovers._settle_once()


def attempts(instance):
    from nova import context, objects

    found = objects.Instance.get_by_uuid(
        context.get_admin_context(read_deleted="yes"), instance.uuid
    )
    return found.cleaned, found.system_metadata.get("clean_attempts")


def test_periodic_task_deletes_the_disks(compute, monkeypatch):
    """As after a local delete by the API, while the host was down."""
    instance = compute.instance()
    compute.dies_while_it_spawns(instance, monkeypatch)
    instance.destroy()
    compute.run_pending_deletes()
    assert compute.disks(instance) == []
    assert attempts(instance) == (True, "1")


@pytest.mark.parametrize("state", ["not deleted", "on another host"])
def test_no_disk_of_another_instance_is_deleted(compute, monkeypatch, state):
    """Nova calls the driver for deleted instances of other hosts, too."""
    instance = compute.instance()
    compute.dies_while_it_spawns(instance, monkeypatch)
    if state == "on another host":
        instance.host = "there"
        instance.save()
        instance.destroy()
    assert compute.driver.delete_instance_files(instance)
    assert compute.disks(instance) == [f"{instance.uuid}_disk"]


def test_outage_uses_up_none_of_novas_attempts(
    compute, pools, monkeypatch, tmp_path
):
    from nova import exception

    instance = compute.instance()
    compute.dies_while_it_spawns(instance, monkeypatch)
    instance.destroy()
    deaf = tmp_path / "deaf.conf"
    deaf.write_text("[global]\nmon_host = v1:127.0.0.1:1\n")
    ceph_conf = str(pools.vms.cluster.settings.conf_file)
    pools.conf(group="libvirt", images_rbd_ceph_conf=str(deaf))
    pools.conf(group="libvirt", rbd_connect_timeout=1)
    with pytest.raises(exception.StorageError):
        compute.run_pending_deletes()
    assert attempts(instance) == (False, None)
    pools.conf(group="libvirt", images_rbd_ceph_conf=ceph_conf)
    compute.run_pending_deletes()
    assert compute.disks(instance) == []


@pytest.fixture
def launched(compute):
    """Return a function that makes a server which has run here, deleted."""
    from nova_rbd_backend.virt import edge

    def made(*disks):
        from oslo_utils import timeutils

        instance = compute.instance()
        instance.launched_at = timeutils.utcnow(with_timezone=True)
        instance.save()
        for pool in disks:
            edge.store().pool(pool).create(f"{instance.uuid}_disk", MIB)
        instance.destroy()
        return instance

    return made


def test_silent_pool_does_not_stop_the_other_pools(
    ceph, compute, pools, classes, launched, monkeypatch
):
    """Nova goes on with no server behind one whose pool is silent."""
    from nova import exception

    from nova_rbd_backend.virt import edge
    from nova_rbd_backend.virt.background import worker

    pools.conf(group="nova_rbd", operation_timeout_seconds=2)
    started = []
    monkeypatch.setattr(
        worker.Background, "start", lambda self: started.append(self)
    )
    servers = [launched(pool) for pool in ("snapshots", "vms", "snapshots")]
    servers.append(launched("vms"))
    there = edge.store().pool("snapshots")
    with ceph.admin() as admin, inactive(admin, "snapshots"):
        with pytest.raises(exception.StorageError, match="snapshots"):
            compute.run_pending_deletes()
        for each in set(started):
            each._do()
        assert [compute.disks(each) for each in servers] == [[]] * 4
        assert [attempts(each) for each in servers] == [(False, None)] * 4
    assert len(there.directory.names(servers[0].uuid)) == 1
    compute.run_pending_deletes()
    assert [there.directory.names(each.uuid) for each in servers] == [[]] * 4
    assert [attempts(each) for each in servers] == [(True, "1")] * 4


DOMAIN = """
<domain type='test'>
  <name>guest-{0}</name><uuid>{0}</uuid><memory>1024</memory>
  <os><type>hvm</type></os>
</domain>
"""


@pytest.fixture
def with_domain(driver):
    """Return a function that has libvirt keep an instance's domain."""
    domains = []

    def has(instance):
        connection = driver._host.get_connection()
        domains.append(connection.defineXML(DOMAIN.format(instance.uuid)))
        return domains[-1]

    yield has
    for domain in domains:
        domain.undefine()


KEEPING = [
    {"running_deleted_instance_action": "noop"},
    {"running_deleted_instance_action": "log"},
    {"running_deleted_instance_action": "shutdown"},
    {"running_deleted_instance_timeout": 3600},
]


@pytest.mark.parametrize("options", KEEPING)
def test_domain_that_nova_keeps_has_its_disks(
    compute, pools, launched, with_domain, caplog, options
):
    from nova_rbd_backend.virt.background import leftovers

    pools.conf(**options)
    instance = launched("vms")
    with_domain(instance)
    compute.run_pending_deletes()
    leftovers._delete_pending_once()
    assert compute.disks(instance) == [f"{instance.uuid}_disk"]
    assert attempts(instance) == (False, "1")
    assert "libvirt has its domain, which Nova keeps" in caplog.text


def test_domain_that_nova_reaps_has_no_disks(compute, launched, with_domain):
    """Nova looks for such domains less often than for pending deletes."""
    instance = launched("vms")
    with_domain(instance)
    compute.run_pending_deletes()
    assert compute.disks(instance) == []


def test_spawn_whose_domain_nova_keeps(
    compute, pools, monkeypatch, with_domain, caplog
):
    pools.conf(running_deleted_instance_action="noop")
    instance = compute.instance()
    compute.dies_while_it_spawns(instance, monkeypatch)
    with_domain(instance)
    instance.destroy()
    assert settle()
    assert compute.disks(instance) == [f"{instance.uuid}_disk"]
    assert spawns(compute) == [instance.uuid]
    assert "libvirt has its domain, which Nova keeps" in caplog.text


def test_disk_that_is_open_stays_and_is_tried_again(
    ceph, compute, monkeypatch, caplog
):
    from nova_rbd_backend.storage.disks import delete

    impatient = functools.partial(delete.delete_disks, busy_limit_seconds=0.5)
    monkeypatch.setattr(delete, "delete_disks", impatient)
    instance = compute.instance()
    compute.dies_while_it_spawns(instance, monkeypatch)
    instance.destroy()
    client = Client(ceph, f"{instance.uuid}_disk")
    try:
        assert client.write("1") == "wrote"
        compute.run_pending_deletes()
        assert compute.disks(instance) == [f"{instance.uuid}_disk"]
        assert "Disks of this deleted instance stay" in caplog.text
        assert attempts(instance) == (False, "1")
    finally:
        client.kill()
    compute.run_pending_deletes()
    assert compute.disks(instance) == []
    assert attempts(instance) == (True, "2")


def test_server_without_a_host(compute, monkeypatch, caplog):
    """Its build has failed, and so has Nova's clean-up after that."""
    instance = compute.instance()
    (entry,) = compute.dies_while_it_spawns(instance, monkeypatch)
    assert entry.compute == HERE
    instance.host = None
    instance.vm_state, instance.task_state = "error", None
    instance.save()
    # The user may still want to know why it failed.
    assert settle()
    assert compute.disks(instance) == [f"{instance.uuid}_disk"]
    instance.destroy()
    compute.run_pending_deletes()
    assert compute.disks(instance) == [f"{instance.uuid}_disk"]
    assert settle()
    assert compute.disks(instance) == []
    assert spawns(compute) == []
    assert f"instance {instance.uuid} was deleted without" in caplog.text


def spawns(compute, pool=None):
    from nova_rbd_backend.storage import journal

    found = [entry.image for entry in journal.spawns(pool or compute.pool)]
    # Other tests fail to spawn instances too.
    return [uuid for uuid in found if uuid in compute.made]


def test_server_that_is_elsewhere_now(compute, monkeypatch, caplog):
    """Its last host deletes the disks when it is back."""
    instance = compute.instance()
    compute.dies_while_it_spawns(instance, monkeypatch)
    instance.host = "there"
    instance.save()
    instance.destroy()
    assert settle()
    assert settle()
    assert compute.disks(instance) == [f"{instance.uuid}_disk"]
    told = [r for r in caplog.records if instance.uuid in r.getMessage()]
    assert [r.levelname for r in told] == ["WARNING"]
    assert "it was deleted on there" in told[0].getMessage()


def test_server_of_another_cell(compute, monkeypatch, caplog):
    """Its hosts' database is another one, and the pool is the same."""
    gone = types.SimpleNamespace(
        uuid=str(uuid.uuid4()), host=HERE, flavor=None, vm_state="building"
    )
    compute.made.append(gone.uuid)
    compute.dies_while_it_spawns(gone, monkeypatch)
    assert settle()
    assert compute.disks(gone) == [f"{gone.uuid}_disk"]
    assert "this cell's database does not have it" in caplog.text


def test_entry_of_another_cell_is_left_to_its_own_host(compute, monkeypatch):
    gone = types.SimpleNamespace(
        uuid=str(uuid.uuid4()), host=HERE, flavor=None, vm_state="building"
    )
    compute.made.append(gone.uuid)
    (entry,) = compute.dies_while_it_spawns(gone, monkeypatch)
    compute.driver._delete_disks(gone)
    entry = compute.became(entry, compute="there")
    assert settle()
    assert spawns(compute) == [gone.uuid]
    compute.became(entry, compute=HERE)
    assert settle()
    assert spawns(compute) == []


def test_server_that_has_run_is_found_by_nova(compute, monkeypatch):
    """Its rebuild was interrupted, or its entry could not be ended."""
    from oslo_utils import timeutils

    instance = compute.instance()
    compute.dies_while_it_spawns(instance, monkeypatch)
    instance.launched_at = timeutils.utcnow(with_timezone=True)
    instance.save()
    assert settle()
    assert spawns(compute) == []
    assert compute.disks(instance) == [f"{instance.uuid}_disk"]
    instance.destroy()
    compute.run_pending_deletes()
    assert compute.disks(instance) == []


def test_silent_pool_is_asked_for_one_instance(compute, monkeypatch, caplog):
    from nova_rbd_backend import errors
    from nova_rbd_backend.storage import store

    for _ in range(3):
        compute.dies_while_it_spawns(compute.instance(), monkeypatch)
    asked = []

    def silent(_store, instance_uuid):
        asked.append(instance_uuid)
        raise errors.OperationTimedOut(operation="list", pool="vms")

    monkeypatch.setattr(store.Store, "disks", silent)
    assert not settle()
    assert len(asked) == 1
    assert "deleted without their host were not looked for" in caplog.text


def test_spawn_of_another_host_is_its_own_for_a_day(compute, monkeypatch):
    instance = compute.instance(host=None)
    (entry,) = compute.dies_while_it_spawns(instance, monkeypatch)
    instance.destroy()
    entry = compute.became(entry, host="elsewhere", compute="elsewhere")
    assert settle()
    assert compute.disks(instance)
    compute.became(entry, begun_at=entry.begun_at - 25 * 3600)
    assert settle()
    assert compute.disks(instance) == []


def test_instance_of_a_class_needs_no_other_pool(
    compute, monkeypatch, classes
):
    from nova_rbd_backend.virt import edge

    fast = edge.store().pool("snapshots")
    instance = compute.instance()
    instance.flavor.extra_specs = {"nova_rbd:class": "fast"}
    compute.dies_while_it_spawns(instance, monkeypatch)
    assert spawns(compute) == []
    assert spawns(compute, fast) == [instance.uuid]
    instance.destroy()
    assert settle()
    assert compute.disks(instance) == []
    assert spawns(compute, fast) == []


def test_evacuation_is_not_recorded(compute, monkeypatch):
    """The old host cleans up when it is back."""
    instance = compute.instance(host="there")
    monkeypatch.setattr(
        "nova_rbd_backend.virt.pools.choice.require_root", lambda _: None
    )
    compute.dies_while_it_spawns(instance, monkeypatch)
    assert spawns(compute) == []


def test_only_a_boot_from_volume_goes_on_without_a_record(
    compute, pools, monkeypatch, tmp_path, caplog
):
    from nova import exception

    deaf = tmp_path / "deaf.conf"
    deaf.write_text("[global]\nmon_host = v1:127.0.0.1:1\n")
    pools.conf(group="libvirt", images_rbd_ceph_conf=str(deaf))
    pools.conf(group="libvirt", rbd_connect_timeout=1)
    spawned = []
    monkeypatch.setattr(
        "nova.virt.libvirt.driver.LibvirtDriver.spawn",
        lambda _driver, _context, instance, *_others: spawned.append(instance),
    )

    def spawn(*volumes):
        compute.driver.spawn(
            *(None, compute.instance(), None, [], "", {}),
            block_device_info={"block_device_mapping": list(volumes)},
        )

    with pytest.raises(exception.StorageError):
        spawn()
    assert not spawned
    spawn({"boot_index": 0})
    assert len(spawned) == 1
    assert "This spawn is not recorded: " in caplog.text


def test_spawn_that_ends_leaves_no_entry(compute, monkeypatch):
    instance = compute.instance()
    during = []

    def spawn(*_args, **_kwargs):
        during.extend(spawns(compute))
        assert settle()
        assert compute.disks(instance) == []

    monkeypatch.setattr("nova.virt.libvirt.driver.LibvirtDriver.spawn", spawn)
    compute.driver.spawn(None, instance, None, [], "", {})
    assert during == [instance.uuid]
    assert spawns(compute) == []


def test_failed_spawn_whose_disks_are_deleted(compute, monkeypatch):
    instance = compute.instance()
    compute.dies_while_it_spawns(instance, monkeypatch)
    assert spawns(compute) == [instance.uuid]
    compute.driver._cleanup_rbd(instance)
    assert settle()
    assert spawns(compute) == []


def test_only_a_failed_spawn_is_settled_at_its_deletion(compute, monkeypatch):
    from nova_rbd_backend.virt.background import leftovers, worker

    started = []
    monkeypatch.setattr(
        worker.Background, "start", lambda self: started.append(self)
    )
    failed = compute.instance()
    compute.dies_while_it_spawns(failed, monkeypatch)
    compute.driver._cleanup_rbd(compute.instance())
    assert leftovers.SETTLER not in started
    compute.driver._cleanup_rbd(failed)
    assert leftovers.SETTLER in started
    assert settle()
    started.clear()
    compute.driver._cleanup_rbd(failed)
    assert leftovers.SETTLER not in started


def test_spawn_of_an_earlier_process_is_settled_at_its_deletion(
    compute, monkeypatch
):
    """Nova gives it up at its start; it is deleted here later."""
    from nova_rbd_backend.virt.background import leftovers, worker

    started = []
    monkeypatch.setattr(
        worker.Background, "start", lambda self: started.append(self)
    )
    failed = compute.instance()
    compute.dies_while_it_spawns(failed, monkeypatch)
    leftovers._not_ended.clear()
    assert settle()
    assert spawns(compute) == [failed.uuid]
    compute.driver._cleanup_rbd(failed)
    assert leftovers.SETTLER in started
    assert settle()
    assert spawns(compute) == []
