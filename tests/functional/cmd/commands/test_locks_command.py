# SPDX-License-Identifier: Apache-2.0

"""nova-rbd locks and unlock, with living, frozen and killed clients."""

import signal

import pytest

from tests.support.blank_disks import blank_disk
from tests.support.clients import blocklist, holders
from tests.support.clusters import started_ceph

MIB = 1 << 20


@pytest.fixture(scope="module")
def ceph():
    """A cluster where a dead client's watch lasts 30 s.

    That is long enough for several commands.
    """
    with started_ceph() as cluster:
        yield cluster


@pytest.fixture
def name(vms, instance, disks_deleted):
    """A disk of the instance."""
    name = f"{instance}_disk"
    blank_disk(vms, name, MIB)
    return name


def test_living_client(ceph, nova_rbd, vms, instance, name, client):
    alive = client(name)
    assert alive.write("data") == "wrote"
    (holder,) = holders(vms, name)

    (row,) = nova_rbd.json("locks", "--instance", instance)

    assert row == {
        "Pool": "vms",
        "Name": name,
        "Client": f"client.{alive.client_id}",
        "Address": holder.address,
        "Lock owner": True,
        "State": "alive",
    }
    assert nova_rbd.json("locks", "--dead", "--instance", instance) == []
    assert "it is alive" in nova_rbd.refused("unlock", name)
    assert holder.address not in blocklist(ceph)
    assert alive.write("more") == "wrote"
    alive.close()
    assert nova_rbd.json("locks", "--instance", instance) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_dead_client(ceph, nova_rbd, vms, instance, name, client, how):
    dead = client(name)
    assert dead.write("old") == "wrote"
    (holder,) = holders(vms, name)
    dead.signal(how)

    (row,) = nova_rbd.json("locks", "--dead", "--instance", instance)

    assert row["State"] == "dead"
    (row,) = nova_rbd.json("unlock", "--dry-run", name)
    assert row["Address"] == holder.address
    assert row["Blocklisted until"] is None
    assert holders(vms, name) == (holder,)
    assert holder.address not in blocklist(ceph)

    (row,) = nova_rbd.json("unlock", name)

    assert row["Client"] == f"client.{dead.client_id}"
    assert row["Lock broken"] is True
    assert row["Blocklisted until"] is not None
    assert holder.address in blocklist(ceph)
    assert not [each for each in holders(vms, name) if each.lock_cookie]
    # An OSD learns of the blocklist from its next client at the latest.
    assert client(name).write("new") == "wrote"
    if how == signal.SIGSTOP:
        dead.signal(signal.SIGCONT)
        assert dead.write("late").startswith("failed")


def test_living_client_beside_a_dead_one(ceph, nova_rbd, name, vms, client):
    dead, alive = client(name), client(name)
    addresses = {each.address for each in holders(vms, name)}
    dead.signal(signal.SIGSTOP)

    refusal = nova_rbd.refused("unlock", name)

    assert "some do not" in refusal
    assert not addresses & blocklist(ceph).keys()
    assert alive.write("data") == "wrote"


def test_disk_without_clients(nova_rbd, name):
    done = nova_rbd.run("unlock", name, "-f", "json")
    assert done.returncode == 0
    assert done.stdout.strip() == "[]"
    assert "no dead client" in done.stderr
