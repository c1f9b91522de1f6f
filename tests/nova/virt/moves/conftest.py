# SPDX-License-Identifier: Apache-2.0

"""One process that is one host, and then another."""

import uuid

import pytest

from tests.nova.images import MIB


@pytest.fixture
def on_host(ceph, nova_conf, tmp_path):
    """Become a host: call it with the conf file and the pool it has."""
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
    from nova import objects
    from nova.virt import fake

    from nova_rbd_backend.virt.driver import LibvirtDriver

    objects.register_all()
    on_host("source")
    return LibvirtDriver(fake.FakeVirtAPI())


@pytest.fixture
def instance(vms):
    """An instance with its root disk in vms."""
    from nova import objects

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
