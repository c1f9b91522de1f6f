# SPDX-License-Identifier: Apache-2.0

"""Options for the layout of new images, accepted and refused."""

import pytest

from nova_rbd_backend import conf as conf_
from nova_rbd_backend import errors
from nova_rbd_backend.image_options import ImageOptions, Striping
from tests.unit.conftest import RBD

KIB, MIB = 1 << 10, 1 << 20
NEEDED = "layering,exclusive-lock,deep-flatten"


@pytest.fixture
def image_options(parse):
    """Return a function from the text of [nova_rbd] to ImageOptions."""

    def image_options(text):
        conf = parse(f"{RBD}[nova_rbd]\n{text}\n")
        return conf_.apply(conf).image_options

    return image_options


def test_without_options_ceph_decides(image_options):
    found = image_options("")

    assert found == ImageOptions()
    assert found.striping is None
    assert found.feature_bits is None
    assert found.conf_metadata == {}


def test_all_options(image_options):
    found = image_options(
        "data_pool = vms-data\n"
        "object_size = 8M\n"
        "stripe_unit = 64k\n"
        "stripe_count = 16\n"
        f"image_features = {NEEDED}, object-map\n"
        "image_conf = rbd_qos_iops_limit:500, rbd_cache:false\n"
    )

    assert found.data_pool == "vms-data"
    assert found.striping == Striping(8 * MIB, 64 * KIB, 16)
    assert found.striping.order == 23
    # librbd/features.h
    assert found.feature_bits == 0x1 | 0x4 | 0x20 | 0x8
    assert found.conf_metadata == {
        "conf_rbd_cache": "false",
        "conf_rbd_qos_iops_limit": "500",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("object_size = 4096", Striping(4 * KIB, 4 * KIB, 1)),
        ("object_size = 32M", Striping(32 * MIB, 32 * MIB, 1)),
        (
            "stripe_unit = 512\nstripe_count = 3",
            Striping(4 * MIB, 512, 3),
        ),
        (
            "object_size = 1M\nstripe_unit = 1024K\nstripe_count = 1",
            Striping(MIB, MIB, 1),
        ),
    ],
)
def test_striping(image_options, text, expected):
    assert image_options(text).striping == expected


REFUSED = {
    "not a power of two": (
        "object_size = 3M",
        "object_size is 3 MiB, but Ceph takes powers of two",
    ),
    "object too small": ("object_size = 2K", "from 4 KiB to 32 MiB"),
    "object too big": ("object_size = 64M", "from 4 KiB to 32 MiB"),
    "not a size": (
        "object_size = big",
        "'big' is not a number of bytes, such as 64K",
    ),
    "other unit": (
        "stripe_unit = 1G",
        "'1G' is not a number of bytes, such as 64K",
    ),
    "unit without count": (
        "stripe_unit = 64K",
        "stripe_unit is set, but stripe_count is not: set both, or neither",
    ),
    "count without unit": (
        "stripe_count = 4",
        "stripe_count is set, but stripe_unit is not: set both, or neither",
    ),
    "count of zero": ("stripe_unit = 64K\nstripe_count = 0", "stripe_count: "),
    "unit does not divide": (
        "object_size = 4M\nstripe_unit = 96K\nstripe_count = 4",
        "stripe_unit is 96 KiB, which does not divide the object_size of 4 "
        "MiB: set it to a power of two",
    ),
    "unit above Ceph's object": (
        "stripe_unit = 8M\nstripe_count = 4",
        "does not divide the object_size of 4 MiB, Ceph's default",
    ),
    "unit too small": (
        "stripe_unit = 256\nstripe_count = 4",
        "stripe_unit is 256 bytes, less than Ceph takes: set it to 512",
    ),
    "unknown feature": (
        f"image_features = {NEEDED}, turbo",
        "image_features has turbo: take of layering, ",
    ),
    "no layering": (
        "image_features = exclusive-lock, deep-flatten",
        "image_features lacks layering, but disks and snapshots are clones",
    ),
    "no lock": (
        "image_features = layering, deep-flatten",
        "image_features lacks exclusive-lock, but without it",
    ),
    "journal without lock": (
        "image_features = layering, deep-flatten, journaling",
        "lacks exclusive-lock, but without it a dead host's guest is not kept "
        "from writing, nor can there be an object map or a journal",
    ),
    "no deep flatten": (
        "image_features = layering, exclusive-lock",
        "image_features lacks deep-flatten, but without it",
    ),
    "fast-diff alone": (
        f"image_features = {NEEDED}, fast-diff",
        "has fast-diff, which does nothing without object-map: add object-map",
    ),
    "not librbd's": (
        "image_conf = crush_location:host=a",
        "'crush_location', but an image can have librbd's own options only",
    ),
    "fencing": (
        "image_conf = rbd_blocklist_on_break_lock:false",
        "a dead client has to be kept from writing: remove it",
    ),
    "cache on the host": (
        "image_conf = rbd_persistent_cache_mode:ssd",
        "what a guest wrote last would be on its host alone: remove it",
    ),
    "not a pair": ("image_conf = rbd_cache", "image_conf: "),
}


@pytest.mark.parametrize(
    ("text", "expected"), REFUSED.values(), ids=REFUSED.keys()
)
def test_refused(image_options, text, expected):
    with pytest.raises(errors.ConfigError) as caught:
        image_options(text)

    line = str(caught.value)
    assert line.startswith("[nova_rbd] ")
    assert expected in line
    assert "\n" not in line


FINE = Striping(4 * MIB, 64 * KIB, 16)


@pytest.mark.parametrize(
    ("wanted", "parent", "expected"),
    [
        (FINE, FINE, FINE),
        (FINE, Striping(4 * MIB, 4 * KIB, 2), FINE),
        # A parent without striping, by Ceph's and by Glance's default.
        (FINE, Striping(4 * MIB, 4 * MIB, 1), Striping(4 * MIB, 4 * MIB, 16)),
        (FINE, Striping(8 * MIB, 8 * MIB, 1), Striping(8 * MIB, 8 * MIB, 16)),
        (FINE, Striping(8 * MIB, MIB, 4), Striping(4 * MIB, MIB, 16)),
        (
            Striping(MIB, MIB, 1),
            Striping(8 * MIB, 8 * MIB, 1),
            Striping(8 * MIB, 8 * MIB, 1),
        ),
    ],
)
def test_clone_is_not_finer_than_its_parent(wanted, parent, expected):
    assert wanted.not_finer_than(parent) == expected


def test_options_are_not_checked_without_rbd(parse):
    conf = parse(
        "[DEFAULT]\nlibvirt_images_type = qcow2\n"
        "[nova_rbd]\nstripe_count = 4\n"
    )

    assert not conf_.apply(conf).uses_rbd


def test_summary_shows_the_options(parse):
    settings = conf_.apply(
        parse(
            f"{RBD}[nova_rbd]\nobject_size = 8M\n"
            "image_conf = rbd_cache:false\n"
        )
    )

    assert "object_size_bytes=8388608" in settings.summary()
    assert "conf={'rbd_cache': 'false'}" in settings.summary()
