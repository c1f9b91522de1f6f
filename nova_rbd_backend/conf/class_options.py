# SPDX-License-Identifier: Apache-2.0

"""The options of new images: those of [nova_rbd], and of storage classes.

A storage class has the same as [nova_rbd], in a group of its own, and a pool.
"""

import re
from collections.abc import Iterable

from oslo_config import cfg, types

#: Before the name of a class in the name of its group.
GROUP_PREFIX = "nova_rbd_class_"


class SizeType(types.ConfigType):  # type: ignore[misc]
    """Bytes, as a number alone or with K (1024 bytes) or M."""

    def __init__(self) -> None:
        super().__init__(type_name="bytes, with K or M")

    def __call__(self, value: object) -> int:
        found = re.fullmatch(r"([0-9]+)([KM]?)", str(value).strip().upper())
        if found is None:
            raise ValueError(f"{value!r} is no number of bytes, like 64K")
        return int(found[1]) << {"": 0, "K": 10, "M": 20}[found[2]]

    def _formatter(self, value: object) -> str:
        return str(value)

    def __repr__(self) -> str:
        return "Size"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    __hash__ = None  # type: ignore[assignment]


IMAGE_OPTS = [
    cfg.StrOpt(
        "data_pool",
        sample_default="vms-data",
        help="""
Pool for the data of new disks, usually an erasure-coded one; names and
metadata stay in the pool of ``libvirt_images_store`` or of the storage class.
When unset the data goes there too. Disks that exist are not moved.
""",
    ),
    cfg.Opt(
        "object_size",
        type=SizeType(),
        sample_default="4M",
        help="""
Size of the objects that new disks and bases are cut into: a power of two from
4K to 32M. When unset it is Ceph's (``rbd_default_order``, 4M), and for a clone
its parent's.

A clone's objects are never smaller than the stripe unit of its parent, which
without striping is the parent's object: 8M for images of a Glance with its
own default. Then they are as big as that, and the log says so once.

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
takes over: from 512 bytes to ``object_size``, which it has to divide. When
unset an image fills one object after the other, and a clone is striped as its
parent is.

A clone's stripe unit is never smaller than its parent's, as for
``object_size``.

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
Over how many objects a stripe goes. After so many units the first of these
objects has its turn again, until all are full.

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
the disks. When unset they are Ceph's (``rbd_default_features``), and for a
clone its parent's.

This backend needs ``layering``, ``exclusive-lock`` and ``deep-flatten``.
``object-map`` needs ``exclusive-lock``, and brings ``fast-diff`` with it,
which needs ``object-map``: they make the deletion of a disk, the copying of a
snapshot and the revert of a resize quick. ``journaling`` needs
``exclusive-lock``, writes all data twice, and is of use to mirroring only.
""",
    ),
    cfg.DictOpt(
        "image_conf",
        sample_default={
            "rbd_qos_iops_limit": "500",
            "rbd_qos_iops_burst": "2000",
        },
        help="""
Options of Ceph's librbd that are set on each new disk, name:value separated by
commas. They count for whoever opens the disk, before those of ceph.conf. Only
names that begin with ``rbd_``; ``rbd config image ls POOL/DISK`` shows what an
image can have and has, ``rbd config image set`` changes one of a disk that is
there: limits at once, others for its next start.

Limits: ``rbd_qos_iops_limit`` and ``rbd_qos_bps_limit`` (bytes in a second,
with M or G), the same with ``read_`` or ``write_`` before ``iops`` and
``bps``; 0 is no limit. With ``_burst`` in place of ``_limit``: how much it may
be for ``..._burst_seconds`` (1). They hold for each disk by itself, also for
this backend's own work on it, such as the revert of a resize. Nova's flavors
have limits too (``quota:disk_...``), which QEMU keeps: the lower one counts.

Others: ``rbd_cache`` (true or false; it overrides what QEMU makes of the
guest's cache mode), ``rbd_cache_size``, ``rbd_readahead_max_bytes``,
``rbd_read_from_replica_policy`` (default, balance, localize). For localize
each host needs its own ``crush_location`` in ceph.conf, which no image can
have.

Bases and snapshots get none, and a disk booted from a snapshot has these and
not those of the disk it was made of.
""",
    ),
]

CLASS_OPTS = [
    cfg.StrOpt(
        "pool",
        sample_default="vms-fast",
        help="""
Ceph pool of the disks of this class; required. Two classes may share one, or
that of ``libvirt_images_store``, and differ in the options below.

Once disks were made there it stays known to all compute hosts, also when the
class is gone from nova.conf.
""",
    ),
    *IMAGE_OPTS,
]


def group(name: str) -> str:
    """Name of the group that has the options of a storage class."""
    return f"{GROUP_PREFIX}{name}"


def option_group(name: str) -> cfg.OptGroup:
    """The group of a storage class, with its help."""
    return cfg.OptGroup(
        group(name),
        title=f"Storage class {name}",
        help="""
One such group for each name in [nova_rbd] storage_classes, with that name in
place of ``name``: where new disks of the class go, and how they are made. What
is not set here is left to Ceph, whatever [nova_rbd] says.
""",
    )


def register(conf: cfg.ConfigOpts, names: Iterable[str]) -> None:
    """Register the groups of these classes; again changes nothing."""
    for name in names:
        if group(name) not in conf:
            conf.register_group(option_group(name))
        conf.register_opts(CLASS_OPTS, group=group(name))
