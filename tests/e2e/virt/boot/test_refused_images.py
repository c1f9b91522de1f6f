# SPDX-License-Identifier: Apache-2.0

"""Boots that must be refused for their image or flavor, and leave nothing."""

import pathlib

import openstack.exceptions
import pytest
from openstack.compute.v2.flavor import Flavor
from openstack.image.v2.image import Image

from tests.e2e.conftest import Images, wait_until_empty
from tests.testbed.ceph import rbd_view
from tests.testbed.guest import building as guest
from tests.testbed.guest import odd_images
from tests.testbed.guest.disk import run
from tests.testbed.openstack.servers import ServerFault, Servers
from tests.testbed.whole import Testbed

pytestmark = pytest.mark.timeout(300)

# Glance inspects images in "bare" containers only (33: location.py). With any
# other container format an image passes Glance and reaches Nova's checks.
UNCHECKED = "ovf"


def refusal(
    stack: Testbed, servers: Servers, image: Image, flavor: Flavor
) -> str:
    """Return the fault of a boot that must fail and leave the pool empty."""
    with pytest.raises(ServerFault) as raised:
        servers.boot("refused", image, flavor)
    wait_until_empty(stack)
    return raised.value.message


def test_flavor_smaller_than_image(
    stack: Testbed,
    servers: Servers,
    flavor: Flavor,
    guest_image: guest.GuestImage,
    tmp_path: pathlib.Path,
) -> None:
    # In qcow2, because Nova's API sees the size of a raw image and would
    # refuse the request itself.
    large = tmp_path / "large.qcow2"
    large.write_bytes(guest_image.qcow2.read_bytes())
    run("qemu-img", "resize", "-q", large, "2G")
    image = servers.upload("large", large, "qcow2", "file")
    fault = refusal(stack, servers, image, flavor)
    assert "Flavor's disk is smaller than the minimum size" in fault or (
        "Flavor's disk is too small for requested image" in fault
    ), fault


def test_corrupt_image(
    stack: Testbed,
    servers: Servers,
    flavor: Flavor,
    tmp_path: pathlib.Path,
) -> None:
    broken = odd_images.corrupt_qcow2(tmp_path / "broken.qcow2")
    image = servers.upload("broken", broken, "qcow2", "file", UNCHECKED)
    fault = refusal(stack, servers, image, flavor)
    assert not stack.cached_images(stack.hosts[0])
    # Nova's words, because Nova checks the image before it asks the backend.
    assert "Disk info file is invalid" in fault, fault


def test_backing_file_on_the_host(
    stack: Testbed,
    servers: Servers,
    flavor: Flavor,
    tmp_path: pathlib.Path,
) -> None:
    thief = odd_images.qcow2_with_host_file(tmp_path / "thief.qcow2")
    image = servers.upload("thief", thief, "qcow2", "file", UNCHECKED)
    fault = refusal(stack, servers, image, flavor)
    assert not stack.cached_images(stack.hosts[0])
    assert image.id in fault, fault
    assert "unacceptable" in fault, fault


def test_glance_refuses_a_backing_file_by_itself(
    stack: Testbed, servers: Servers, tmp_path: pathlib.Path
) -> None:
    thief = odd_images.qcow2_with_host_file(tmp_path / "thief.qcow2")
    glance = stack.openstack.connection().image
    before = {image.id for image in glance.images()}
    with pytest.raises(
        openstack.exceptions.HttpException, match="failed safety checks"
    ):
        servers.upload("thief", thief, "qcow2", "file")
    assert {image.id for image in glance.images()} == before


def test_next_boot_works(
    stack: Testbed, servers: Servers, images: Images, flavor: Flavor
) -> None:
    server = servers.boot("next", images.raw, flavor)
    assert f"{server.id}_disk" in rbd_view.images(stack.cluster, "vms")
