# SPDX-License-Identifier: Apache-2.0

"""The options in [nova_rbd] reach the images that Nova asks for."""

import logging
import uuid

import pytest

from tests.nova.images import GIB, MIB, another, cache, fetcher, never, rbd


@pytest.fixture
def wanted(pools):
    pools.conf(
        group="nova_rbd",
        object_size=MIB,
        stripe_unit=65536,
        stripe_count=7,
        image_features=["layering", "exclusive-lock", "deep-flatten"],
        image_conf={"rbd_qos_iops_limit": "5000"},
    )


def found(pools, name):
    with pools.vms.open(name) as disk:
        layout, facts = disk.layout(), disk.metadata()
    assert "object-map" not in layout.features
    return (
        layout.object_bytes,
        layout.stripe_unit_bytes,
        layout.stripe_count,
        facts.get("conf_rbd_qos_iops_limit"),
    )


def test_base_and_disk_of_a_fetched_image(pools, wanted, glance, instance):
    glance(disk_format="qcow2")
    image_id = str(uuid.uuid4())
    cache(rbd(instance), fetcher(b"fetched", []), image_id=image_id)

    (base,) = pools.vms.directory.names(f"nova-base_{image_id}")
    assert found(pools, base) == (MIB, 65536, 7, None)
    assert found(pools, f"{instance.uuid}_disk") == (MIB, 65536, 7, "5000")


def test_disk_without_an_image(pools, wanted, instance):
    image = rbd(instance, "disk.eph0")

    image.cache(
        fetch_func=fetcher(b"formatted", []),
        filename="ephemeral_1_default",
        size=GIB,
        ephemeral_size=1,
    )

    assert found(pools, image.disk.image) == (MIB, 65536, 7, "5000")


def test_coarser_parent_is_logged_once(pools, wanted, glance, parent, caplog):
    glance(urls=(parent,))
    caplog.set_level(logging.INFO)

    for _ in range(2):
        image = rbd(another())
        cache(image, never)
        assert found(pools, image.disk.image) == (4 * MIB, 4 * MIB, 7, "5000")

    assert caplog.text.count("never striped finer than its parent") == 1
    assert (
        "Clones in vms of images in images with objects of 4 MiB, stripes of "
        "4 MiB over 1 get objects of 4 MiB, stripes of 4 MiB over 7: "
        "[nova_rbd] asks for objects of 1 MiB, stripes of 64 KiB over 7"
    ) in caplog.text
