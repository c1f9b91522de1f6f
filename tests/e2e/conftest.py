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

"""One OpenStack for the whole run, and a pool that each test leaves empty."""

import dataclasses
import os
import signal
from collections.abc import Iterator

import pytest
from openstack.compute.v2.flavor import Flavor
from openstack.image.v2.image import Image

from tests.testbed import guest, paths, rbd_view
from tests.testbed.host import ComputeHost
from tests.testbed.process import wait_for
from tests.testbed.servers import Servers
from tests.testbed.whole import Testbed

NAME = "e2e"
# Ceph is stopped in one test: Nova is to notice within seconds.
OVERRIDES = {"nova_rbd": {"operation_timeout_seconds": 10}}
PURGE_SECONDS = 60


def pytest_configure(config: pytest.Config) -> None:
    """Let SIGTERM end the testbed too, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def stack(pytestconfig: pytest.Config) -> Iterator[Testbed]:
    """Ceph, one compute host and OpenStack, with this backend.

    NOVA_RBD_TESTBED_KEEP=1 takes one that is up and leaves it up: for those
    who write tests.
    """
    keep = os.environ.get("NOVA_RBD_TESTBED_KEEP") == "1"
    testbed = Testbed(NAME, hosts=1, overrides=OVERRIDES)
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print()
        if not keep:
            testbed.down()
        try:
            testbed.up()
        except BaseException:
            if not keep:
                testbed.down()
            raise
    yield testbed
    if not keep:
        testbed.down()


@pytest.fixture(scope="session")
def guest_image() -> guest.GuestImage:
    """The guest's disk in files."""
    return guest.build(paths.cache() / "guest", paths.cache() / "cache")


@dataclasses.dataclass(frozen=True)
class Images:
    """The guest in Glance: ``raw`` in this Ceph, ``qcow2`` elsewhere."""

    raw: Image
    qcow2: Image


@pytest.fixture(scope="session")
def images(stack: Testbed, guest_image: guest.GuestImage) -> Images:
    """The guest image, uploaded to both of Glance's stores."""
    servers = stack.servers()
    return Images(
        raw=servers.upload("guest-raw", guest_image.raw, "raw", "rbd"),
        qcow2=servers.upload(
            "guest-qcow2", guest_image.qcow2, "qcow2", "file"
        ),
    )


@pytest.fixture
def servers(stack: Testbed) -> Iterator[Servers]:
    """What a user does; afterwards every server is deleted, the pool empty."""
    user = stack.servers()
    yield user
    user.delete_all()
    wait_until_empty(stack)


@pytest.fixture
def flavor(servers: Servers) -> Flavor:
    """One root disk of 1 GiB."""
    return servers.flavor("root-only", disk_gib=1)


@pytest.fixture(scope="module")
def spare_host(stack: Testbed) -> Iterator[ComputeHost]:
    """A compute host whose nova-compute the tests start themselves."""
    host = stack.host(2)
    stack.start_host(host)
    yield host
    stack.forget_host(host)


def wait_until_empty(stack: Testbed) -> None:
    """Wait until nothing is in the pool of the disks, nor in its trash."""
    wait_for(
        "pool vms and its trash are empty",
        lambda: not rbd_view.left(stack.cluster, "vms"),
        PURGE_SECONDS,
        interval_seconds=0.5,
    )
