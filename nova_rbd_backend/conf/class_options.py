# SPDX-License-Identifier: Apache-2.0

"""The options of new images, for [nova_rbd] and for each storage class.

A storage class has the options in a group of its own, and also a pool.
"""

import re
from collections.abc import Iterable

from oslo_config import cfg, types

#: Precedes the name of a class in the name of its group.
_GROUP_PREFIX = "nova_rbd_class_"


class SizeType(types.Integer):  # type: ignore[misc]
    """Bytes, as a number alone or with K (1024 bytes) or M."""

    def __init__(self) -> None:
        super().__init__(type_name="bytes, with K or M")

    def __call__(self, value: object) -> int:
        found = re.fullmatch(r"([0-9]+)([KM]?)", str(value).strip().upper())
        if found is None:
            raise ValueError(
                f"{value!r} is not a number of bytes, such as 64K"
            )
        return int(found[1]) << {"": 0, "K": 10, "M": 20}[found[2]]


IMAGE_OPTS = [
    cfg.StrOpt(
        "data_pool",
        sample_default="vms-data",
        help="""
Pool for the data of new disks, usually an erasure-coded one. Names and
metadata stay in the pool of ``libvirt_images_store`` or of the storage class;
when this option is unset, the data goes there too. Existing disks are not
moved.
""",
    ),
    cfg.Opt(
        "object_size",
        type=SizeType(),
        sample_default="4M",
        help="""
Size of the objects of new disks and bases: a power of two from 4K to 32M. When
unset, it is Ceph's default (``rbd_default_order``, 4M), or for a clone the
size of its parent's objects.

A clone's objects are never smaller than the stripe unit of its parent. Without
striping that is the size of the parent's objects, which is 8M for images that
Glance has made with its default. If a clone gets larger objects for this
reason, the log says so once.

Related options:

* Glance's ``rbd_store_chunk_size``
* ``stripe_unit``
""",
    ),
    cfg.Opt(
        "stripe_unit",
        type=SizeType(),
        sample_default="64K",
        help="""
How many bytes of a new disk or base go into one object before the next object
is used: from 512 bytes to ``object_size``, which has to be a multiple of it.
When unset, an image fills one object after the other, and a clone is striped
as its parent is.

A clone's stripe unit is never smaller than its parent's; see ``object_size``.

Related options:

* ``stripe_count``: required with it
* ``object_size``
""",
    ),
    cfg.IntOpt(
        "stripe_count",
        min=1,
        sample_default=16,
        help="""
Number of objects in a stripe. After as many units, the first of these objects
is used again, until all of them are full.

Related options:

* ``stripe_unit``: required with it
""",
    ),
    cfg.ListOpt(
        "image_features",
        item_type=types.String(),
        sample_default=(
            "layering,exclusive-lock,object-map,fast-diff,deep-flatten"
        ),
        help="""
RBD features of new disks and bases, and of snapshots that go to the pool of
the disks. When unset, they are Ceph's default (``rbd_default_features``) and
those that this backend needs.

This backend needs ``layering``, ``exclusive-lock`` and ``deep-flatten``.
``object-map`` needs ``exclusive-lock``, and brings ``fast-diff`` with it,
which needs ``object-map``. Both make it faster to delete a disk, to copy a
snapshot and to revert a resize. ``journaling`` needs ``exclusive-lock``,
writes all data twice, and is of use only for mirroring.
""",
    ),
    cfg.DictOpt(
        "image_conf",
        sample_default={
            "rbd_qos_iops_limit": "500",
            "rbd_qos_iops_burst": "2000",
        },
        help="""
Options of Ceph's librbd that are set on each new disk, as name:value separated
by commas. They apply to every client that opens the disk, and take precedence
over ceph.conf. Names have to begin with ``rbd_``. ``rbd config image ls
POOL/DISK`` lists the options of an image, and ``rbd config image set`` changes
an option of an existing disk: limits at once, others at its next start.

Limits: ``rbd_qos_iops_limit`` and ``rbd_qos_bps_limit`` (bytes per second,
with M or G), and the same with ``read_`` or ``write_`` before ``iops`` and
``bps``; 0 means no limit. With ``_burst`` in place of ``_limit`` it is the
limit for bursts of ``..._burst_seconds`` (1). A limit applies to each disk
separately, and also to this backend's own work on the disk, such as the revert
of a resize. The limits of Nova's flavors (``quota:disk_...``) are enforced by
QEMU; the lower limit is effective.

Others: ``rbd_cache`` (true or false; overrides what QEMU derives from the
guest's cache mode), ``rbd_cache_size``, ``rbd_readahead_max_bytes``,
``rbd_read_from_replica_policy`` (default, balance, localize). For localize,
each host needs its own ``crush_location`` in ceph.conf; an image cannot have
that option.

Bases and snapshots do not get these options. A disk that is booted from a
snapshot gets these options, and not those of the snapshot's disk.
""",
    ),
]

CLASS_OPTS = [
    cfg.StrOpt(
        "pool",
        sample_default="vms-fast",
        help="""
Ceph pool of the disks of this class; required. Several classes may use the
same pool, or that of ``libvirt_images_store``, with other options.

Once a disk has been made in the pool, all compute hosts know the pool, even
after the class has been removed from nova.conf.
""",
    ),
    *IMAGE_OPTS,
]


def group(name: str) -> str:
    """Return the name of the group with the options of a storage class."""
    return f"{_GROUP_PREFIX}{name}"


def option_group(name: str) -> cfg.OptGroup:
    """Return the group of a storage class, with its help."""
    return cfg.OptGroup(
        group(name),
        title=f"Storage class {name}",
        help="""
Where the disks of a storage class go, and how they are made. There is one such
group for each name in [nova_rbd] storage_classes, with that name in place of
``name``. Options that are not set here are left to Ceph, whatever [nova_rbd]
says.
""",
    )


def register(conf: cfg.ConfigOpts, names: Iterable[str]) -> None:
    """Register the groups of these classes, if that has not been done."""
    for name in names:
        if group(name) not in conf:
            conf.register_group(option_group(name))
        conf.register_opts(CLASS_OPTS, group=group(name))
