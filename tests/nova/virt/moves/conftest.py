# SPDX-License-Identifier: Apache-2.0

"""One process that plays one host, and then another."""

import uuid

import pytest

from tests.nova.drivers import new_driver
from tests.nova.images import MIB


@pytest.fixture
def on_host(ceph, nova_conf, tmp_path):
    """Return a function to become a host with a pool of a cluster."""
    nova_conf(
        group="libvirt",
        connection_uri="test:///default",
        rbd_user="nova",
        rbd_secret_uuid=str(uuid.uuid4()),
    )

    def become(name, pool="vms", of=ceph):
        instances = tmp_path / name
        instances.mkdir(exist_ok=True)
        nova_conf(instances_path=str(instances))
        nova_conf(
            group="libvirt",
            images_rbd_pool=pool,
            images_rbd_ceph_conf=str(of.conf),
        )
        return instances

    return become


@pytest.fixture
def driver(on_host):
    on_host("source")
    return new_driver()


@pytest.fixture
def instance(vms):
    """An instance with its root disk in vms."""
    from nova import objects

    objects.register_all()
    made = objects.Instance(
        uuid=str(uuid.uuid4()),
        image_ref=str(uuid.uuid4()),
        numa_topology=None,
        flavor=objects.Flavor(extra_specs={}),
        system_metadata={},
        id=1,
    )
    vms.create(f"{made.uuid}_disk", MIB)
    return made


@pytest.fixture
def cross_cell_context(monkeypatch):
    """What an instance has while a resize moves it to another cell."""
    from nova import objects

    objects.register_all()
    # In place of Nova's database.
    migration = objects.Migration(
        id=1, uuid=str(uuid.uuid4()), cross_cell_move=True
    )
    monkeypatch.setattr(objects.Migration, "get_by_id", lambda *_: migration)
    return objects.MigrationContext(migration_id=1)
