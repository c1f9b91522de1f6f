# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

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
