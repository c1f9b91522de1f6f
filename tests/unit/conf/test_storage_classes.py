# SPDX-License-Identifier: Apache-2.0

"""Storage classes in nova.conf, and those that are refused."""

import pytest

from nova_rbd_backend import conf as conf_
from nova_rbd_backend import errors
from nova_rbd_backend.image_options import ImageOptions
from nova_rbd_backend.storage_classes import (
    StorageClass,
    asked_for,
    is_resource_class,
)
from tests.unit.conftest import RBD

TWO = f"""{RBD}
[nova_rbd]
storage_classes = fast, cheap-disks
default_storage_class = fast
object_size = 8M
[nova_rbd_class_fast]
pool = vms-fast
stripe_unit = 64K
stripe_count = 4
image_conf = rbd_qos_iops_limit:9000
[nova_rbd_class_cheap-disks]
pool = vms
data_pool = vms-data
"""


def test_two_classes(parse):
    conf = parse(TWO)

    settings = conf_.apply(conf)

    default = StorageClass(
        "default", "vms", ImageOptions(object_size_bytes=8 << 20)
    )
    fast = StorageClass(
        "fast",
        "vms-fast",
        ImageOptions(
            stripe_unit_bytes=64 << 10,
            stripe_count=4,
            conf=(("rbd_qos_iops_limit", "9000"),),
        ),
    )
    cheap = StorageClass(
        "cheap-disks", "vms", ImageOptions(data_pool="vms-data")
    )
    assert settings.classes == (default, fast, cheap)
    assert settings.default_class == fast
    assert settings.class_named("cheap-disks") == cheap
    assert settings.class_named("slow") is None
    assert settings.class_of_pool("vms") == default
    assert settings.class_of_pool("elsewhere") is None
    assert "'fast': 'vms-fast'" in settings.summary()
    assert conf_.apply(conf) == settings


def test_without_classes_only_the_default_exists(parse):
    settings = conf_.apply(parse(RBD))

    assert [each.name for each in settings.classes] == ["default"]
    assert settings.default_class.pool == "vms"


REFUSED = {
    "name of the default": (
        "storage_classes = default",
        "which is the class of libvirt_images_store",
    ),
    "capitals": ("storage_classes = Fast", "'Fast': use only a-z"),
    "twice": ("storage_classes = fast, fast", "has a name twice"),
    "same name in Placement": (
        "storage_classes = a-b, a_b",
        "both be CUSTOM_RBD_A_B_GB",
    ),
    "no group": (
        "storage_classes = fast",
        "[nova_rbd_class_fast] pool is not set",
    ),
    "no pool": (
        "storage_classes = fast\n[nova_rbd_class_fast]\nobject_size = 8M",
        "[nova_rbd_class_fast] pool is not set",
    ),
    "unknown default": (
        "default_storage_class = slow",
        "default_storage_class is 'slow', but there is no such class",
    ),
    "wrong option": (
        "storage_classes = fast\n[nova_rbd_class_fast]\npool = vms\n"
        "stripe_unit = 64K",
        "[nova_rbd_class_fast] stripe_unit is set, but stripe_count is not",
    ),
    "no number": (
        "storage_classes = fast\n[nova_rbd_class_fast]\npool = vms\n"
        "object_size = big",
        "[nova_rbd_class_fast] object_size: ",
    ),
    "no share": (
        "capacity_share_percent = 0",
        "[nova_rbd] capacity_share_percent: ",
    ),
}


@pytest.mark.parametrize(
    ("text", "expected"), REFUSED.values(), ids=REFUSED.keys()
)
def test_refused(parse, text, expected):
    with pytest.raises(errors.ConfigError) as caught:
        conf_.apply(parse(f"{RBD}[nova_rbd]\n{text}\n"))

    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_classes_are_ignored_without_rbd(parse):
    settings = conf_.apply(
        parse("[nova_rbd]\nstorage_classes = fast\n")  # as nova-api's may say
    )

    assert settings.storage_classes == ()


SPECS = {
    "nova_rbd:class": "all",
    "nova_rbd:root_class": "root",
    "nova_rbd:ephemeral_class": "ephemeral",
    "nova_rbd:swap_class": "swap",
}


@pytest.mark.parametrize(
    ("disk", "expected"),
    [
        ("disk", "root"),
        ("disk.rescue", "root"),
        ("disk.local", "ephemeral"),
        ("disk.eph1", "ephemeral"),
        ("disk.swap", "swap"),
        ("disk.config", "all"),
        ("disk.config.rescue", "all"),
    ],
)
def test_class_that_a_flavor_asks_for(disk, expected):
    assert asked_for(SPECS, disk) == expected
    assert asked_for({"nova_rbd:class": "all"}, disk) == "all"
    assert asked_for({}, disk) is None


def test_resource_class_in_placement():
    fast = StorageClass("cheap-disks", "vms", ImageOptions())

    assert fast.resource_class == "CUSTOM_RBD_CHEAP_DISKS_GB"
    assert is_resource_class(fast.resource_class)
    assert not is_resource_class("DISK_GB")
