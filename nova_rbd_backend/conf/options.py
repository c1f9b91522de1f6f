# SPDX-License-Identifier: Apache-2.0

"""Every option: their definitions, for oslo.config and for the sample file."""

from oslo_config import cfg, types

from nova_rbd_backend.conf import class_options

# The same values as Nova's [libvirt] images_type (nova/conf/libvirt.py, 26 to
# 34): the generic option is another way to give that one.
IMAGES_TYPES = {
    "raw": "raw files",
    "flat": "the same as raw",
    "qcow2": "qcow2 files over a local cache of base images",
    "lvm": "logical volumes",
    "rbd": "RBD images in Ceph, kept by this backend",
    "ploop": "ploop images, for Virtuozzo containers",
    "default": "qcow2 or raw, as use_cow_images says",
}

GENERIC_OPTS = [
    cfg.StrOpt(
        "libvirt_images_type",
        choices=list(IMAGES_TYPES.items()),
        help="""
Kind of storage that holds the disks of instances.

Sets ``[libvirt] images_type``. With ``rbd`` the disks are RBD images in Ceph,
kept by this backend; every other type goes to Nova's own code. When unset,
``[libvirt] images_type`` decides.

Related options:

* ``libvirt_images_store``: required for ``rbd`` and ``lvm``
* ``compute_driver``: must be ``rbd_backend.LibvirtDriver``
* ``force_raw_images``: must stay true for ``rbd``
""",
    ),
    cfg.StrOpt(
        "libvirt_images_store",
        sample_default="vms",
        help="""
Where disks of instances are made: the Ceph pool for ``rbd`` (sets
``[libvirt] images_rbd_pool``), the volume group for ``lvm`` (sets ``[libvirt]
images_volume_group``). No other type has a store.
""",
    ),
    # An option of its own and no deprecated_name, behind which oslo.config
    # hides one of two values without a word: two stores must not start.
    cfg.StrOpt(
        "libvirt_images_volume_group",
        deprecated_for_removal=True,
        deprecated_reason="It is now called libvirt_images_store.",
        help="""
Old name of ``libvirt_images_store``.
""",
    ),
    cfg.StrOpt(
        "libvirt_images_snapshot_store",
        sample_default="snapshots",
        help="""
Ceph pool that snapshots of instances (image-create, shelve) go to, for
``rbd`` only. When unset they go to the pool of ``libvirt_images_store``.

A snapshot is an RBD image of its own, whose location is given to Glance. So
Glance needs a store of its own for this pool and the rights to read and delete
there, and Nova needs none in Glance's other pools. Where Glance takes no such
location the snapshot is uploaded to it instead.

Related options:

* ``[service_user] send_service_user_token``: with Nova 32 and later Glance
  takes locations from services only
""",
    ),
    cfg.StrOpt(
        "rbd_user",
        sample_default="nova",
        help="""
Ceph user of Nova and of the guests, without ``client.``.

Sets ``[libvirt] rbd_user``, which Nova also falls back to for Cinder volumes
without a user of their own. Leave it unset only where the cluster asks for no
authentication.

Related options:

* ``rbd_secret_uuid``: required with it
""",
    ),
    cfg.StrOpt(
        "rbd_secret_uuid",
        sample_default="457eb676-33da-42ec-9a8c-9293d545c337",
        help="""
UUID of the libvirt secret that holds the key of ``rbd_user``.

Sets ``[libvirt] rbd_secret_uuid``. The same UUID has to be defined on every
compute host that guests may migrate to.
""",
    ),
]

NOVA_RBD_GROUP = cfg.OptGroup(
    "nova_rbd",
    title="RBD image backend",
    help="Tuning of the RBD image backend. The defaults suit most clouds.",
)

NOVA_RBD_OPTS = [
    cfg.IntOpt(
        "operation_timeout_seconds",
        default=60,
        min=1,
        help="""
Longest that one request to Ceph may wait for an answer before it fails, so
that a cluster that is down gives an error and not a stuck instance.
""",
    ),
    cfg.IntOpt(
        "trash_retention_seconds",
        default=0,
        min=0,
        help="""
How long a deleted disk stays in the pool's trash, from where an operator can
restore it. With 0 its space is given back as soon as possible.
""",
    ),
    cfg.IntOpt(
        "blocklist_seconds",
        default=7 * 24 * 3600,
        min=3600,
        help="""
For how long Ceph refuses the writes of a client that was taken for dead, when
its guest is started elsewhere or deleted.

A host that was only cut off or frozen may come back with a guest that still
runs: once this time is over it could write into a disk that another guest has
had since. Longer than any host may be away before somebody has looked at it.
Ceph's own default is an hour.

Each dead client takes some bytes of the cluster's map for that time. A host
that comes back sooner needs nothing: its new processes are new clients. ``ceph
osd blocklist ls`` shows them.
""",
    ),
    cfg.IntOpt(
        "import_workers",
        default=16,
        min=1,
        max=64,
        help="""
Parallel writes for one image that has to be copied into Ceph. Each needs
4 MiB of memory.
""",
    ),
    cfg.IntOpt(
        "import_at_once",
        default=2,
        min=1,
        help="""
How many images this host may copy into Ceph at the same time, each from its
download on. Each needs room for the image on the local disk, below Nova's
``instances_path``, for as long as it takes. An image is copied once into a
pool, by one host; disks are then cloned from it.
""",
    ),
    cfg.IntOpt(
        "detach_at_once",
        default=2,
        min=1,
        help="""
How many snapshots of a pool may be copied away from their disks at the same
time, by all compute hosts together. The copying runs in the background, so a
low number spares the disks in use and only keeps deleted disks longer in the
trash.
""",
    ),
    cfg.IntOpt(
        "clone_depth_soft_limit",
        default=4,
        min=1,
        help="""
Snapshots with more parents than this, one above the other, are detached before
all others. A chain grows while snapshots are booted from, and made of what was
booted, faster than they are detached; each parent makes reads slower.
""",
    ),
    cfg.IntOpt(
        "clone_depth_hard_limit",
        default=8,
        min=1,
        help="""
A disk that would have more parents than this, one above the other, gets a copy
of its data when it is made, which takes as long as its data is big.
""",
    ),
    *class_options.IMAGE_OPTS,
    cfg.ListOpt(
        "storage_classes",
        item_type=types.String(),
        default=[],
        sample_default="fast,archive",
        help="""
Names of storage classes, of ``a-z``, ``0-9``, ``_`` and ``-``: each is a pool,
with options for the disks in it, in a group ``[nova_rbd_class_name]`` of its
own. A flavor chooses one for its disks::

    openstack flavor set --property nova_rbd:class=fast FLAVOR

and with ``nova_rbd:root_class``, ``nova_rbd:ephemeral_class`` and
``nova_rbd:swap_class`` another for some of them. ``default`` is the class of
``libvirt_images_store`` and of this group.

A disk stays where it was made, whatever becomes of its flavor or its class.
All compute hosts should have the same classes: a host refuses to make a disk
of one that it does not know. nova-api, if it is told the names too, refuses
flavors with others.
""",
    ),
    cfg.StrOpt(
        "default_storage_class",
        default="default",
        help="""
The class of disks whose flavor asks for none. Its pool is what Placement is
told of as ``DISK_GB``.

Related options:

* ``storage_classes``
""",
    ),
    cfg.IntOpt(
        "capacity_share_percent",
        default=100,
        min=1,
        max=100,
        help="""
How much of each pool this host reports as its own, to Placement and as a
hypervisor's disk. Several compute hosts on one pool count all of it once each
with 100, as with the in-tree backend, so that together they promise more than
there is. With ten hosts and 10 the sum is what the pool holds, but no host
takes more than its part.
""",
    ),
]

# Options of Nova that are read here, with Nova's defaults (26 to 34).
_NOVA_OPTS: dict[str | None, list[cfg.Opt]] = {
    None: [
        cfg.StrOpt("compute_driver"),
        cfg.BoolOpt("force_raw_images", default=True),
        # Nova's own default is where its code is; packages set this one.
        cfg.StrOpt("state_path", default="/var/lib/nova"),
        cfg.StrOpt("instances_path", default="$state_path/instances"),
    ],
    "libvirt": [
        cfg.StrOpt(
            "images_type", default="default", choices=list(IMAGES_TYPES)
        ),
        cfg.StrOpt("images_volume_group"),
        cfg.StrOpt("images_rbd_pool", default="rbd"),
        cfg.StrOpt("images_rbd_ceph_conf", default=""),
        cfg.StrOpt("rbd_user"),
        cfg.StrOpt("rbd_secret_uuid"),
        cfg.IntOpt("rbd_connect_timeout", default=5),
        cfg.StrOpt("connection_uri", default=""),
    ],
    "ephemeral_storage_encryption": [cfg.BoolOpt("enabled", default=False)],
}


def list_opts() -> list[tuple[str | cfg.OptGroup, list[cfg.Opt]]]:
    """Return the options for oslo-config-generator."""
    return [
        ("DEFAULT", GENERIC_OPTS),
        (NOVA_RBD_GROUP, NOVA_RBD_OPTS),
        (class_options.option_group("name"), class_options.CLASS_OPTS),
    ]


def register(conf: cfg.ConfigOpts) -> None:
    """Register the options, before or after parsing; again changes nothing."""
    conf.register_opts(GENERIC_OPTS)
    conf.register_group(NOVA_RBD_GROUP)
    conf.register_opts(NOVA_RBD_OPTS, group=NOVA_RBD_GROUP)


def register_nova_options(conf: cfg.ConfigOpts) -> None:
    """Register those of Nova's options that are read here.

    For programs without Nova. Not for use on Nova's own configuration object.
    """
    for group, opts in _NOVA_OPTS.items():
        conf.register_opts(opts, group=group)
