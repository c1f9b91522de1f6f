# SPDX-License-Identifier: Apache-2.0

"""The definition of every option, for oslo.config and for the sample file."""

from oslo_config import cfg, types

from nova_rbd_backend.conf import class_options

# The values of Nova's [libvirt] images_type (nova/conf/libvirt.py, 26 to 34),
# which the generic option sets.
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
kept by this backend; Nova's own code keeps the disks of all other types. When
unset, ``[libvirt] images_type`` decides.

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
Where the disks of instances are made: the Ceph pool for ``rbd`` (sets
``[libvirt] images_rbd_pool``), the volume group for ``lvm`` (sets ``[libvirt]
images_volume_group``). The other types have no store.
""",
    ),
    # Not a deprecated_name: if both names were set, oslo.config would silently
    # ignore one of the two values. Two stores have to be refused.
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
Ceph pool for the snapshots of instances (image-create, shelve), for ``rbd``
only. When unset, they go to the pool of ``libvirt_images_store``.

A snapshot is an RBD image of its own, whose location is given to Glance.
Glance therefore needs a store for this pool, and the rights to read and delete
images there; Nova needs no rights in Glance's other pools. If Glance does not
accept the location, the snapshot is uploaded instead.

Related options:

* ``[service_user] send_service_user_token``: with Nova 32 and later, Glance
  accepts locations only from services
""",
    ),
    cfg.StrOpt(
        "rbd_user",
        sample_default="nova",
        help="""
Ceph user of Nova and of the guests, without ``client.``.

Sets ``[libvirt] rbd_user``, which Nova also uses for Cinder volumes without a
user of their own. Leave it unset only if the cluster requires no
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
How long one request to Ceph may wait for an answer before it fails, so that a
cluster that is down causes an error and not a stuck instance. A change of a
disk waits as long for a client that keeps the disk's exclusive lock.
""",
    ),
    cfg.IntOpt(
        "trash_retention_seconds",
        default=0,
        min=0,
        help="""
How long a deleted disk stays in the pool's trash, from where an operator can
restore it. With 0, its space is freed as soon as possible.
""",
    ),
    cfg.IntOpt(
        "blocklist_seconds",
        default=7 * 24 * 3600,
        min=3600,
        help="""
How long Ceph refuses the writes of a client that was taken for dead when its
guest was started elsewhere or deleted.

A host that was only cut off or frozen may come back with a running guest. Once
this time is over, that guest could write to a disk that another guest has used
since. Choose a time longer than any host may be away before somebody has
looked at it. Ceph's own default is an hour
(``mon_osd_blocklist_default_expire``). Ceph's default applies to clients whose
locks QEMU or Ceph's manager breaks; set it to the same time or more.

Each blocklisted client takes some bytes in the cluster's map during that time.
A host that comes back earlier is not restricted, because its new processes are
new clients. ``ceph osd blocklist ls`` lists the clients.
""",
    ),
    cfg.IntOpt(
        "import_workers",
        default=16,
        min=1,
        max=64,
        help="""
Number of parallel writes for one image that has to be copied into Ceph. Each
needs 4 MiB of memory.
""",
    ),
    cfg.IntOpt(
        "import_at_once",
        default=2,
        min=1,
        help="""
How many images this host may download and copy into Ceph at the same time.
Each needs space for the image below Nova's ``instances_path`` until it is
copied. An image is copied into a pool once, by one host; disks are then cloned
from it.
""",
    ),
    cfg.IntOpt(
        "detach_at_once",
        default=2,
        min=1,
        help="""
How many snapshots of a pool may be copied away from their disks at the same
time, by all compute hosts together. This is done in the background: a low
number spares the disks in use, and only keeps deleted disks longer in the
trash.
""",
    ),
    cfg.IntOpt(
        "clone_depth_soft_limit",
        default=4,
        min=1,
        help="""
Snapshots with more parents than this, one above the other, are detached before
all others. A chain grows if instances are booted from snapshots, and snapshots
made of these instances, faster than snapshots are detached. Each parent makes
reads slower.
""",
    ),
    cfg.IntOpt(
        "clone_depth_hard_limit",
        default=8,
        min=1,
        help="""
A disk that would have more parents than this, one above the other, gets a copy
of its data when it is made. This takes longer the more data there is.
""",
    ),
    cfg.FloatOpt(
        "freeze_limit_seconds",
        default=0.8,
        min=0.1,
        max=60,
        help="""
How long a guest's file systems may be frozen for a snapshot, if the image says
that the guest has an agent. They are thawed after this time although Ceph has
not yet made the snap; the snapshot is then as after a power loss, or fails if
the image has ``os_require_quiesce``.

A snap takes some 30 ms, but longer while Ceph is busy or recovers. A guest
that is frozen for too long may miss the heartbeats of a cluster that it
belongs to. Windows allows no more than 10 s.
""",
    ),
    *class_options.IMAGE_OPTS,
    cfg.ListOpt(
        "storage_classes",
        item_type=types.String(),
        default=[],
        sample_default="fast,archive",
        help="""
Names of storage classes, of ``a-z``, ``0-9``, ``_`` and ``-``. Each class is a
pool, with options for the disks in it, in a group ``[nova_rbd_class_name]`` of
its own. A flavor chooses a class for its disks::

    openstack flavor set --property nova_rbd:class=fast FLAVOR

and another class for some of them with ``nova_rbd:root_class``,
``nova_rbd:ephemeral_class`` and ``nova_rbd:swap_class``. ``default`` is the
class of ``libvirt_images_store`` and of this group.

A disk stays where it was made, even if its flavor or its class is changed. All
compute hosts should have the same classes: a host refuses to make a disk of a
class that it does not know. If nova-api is given the names too, it refuses
flavors with other names.
""",
    ),
    cfg.StrOpt(
        "default_storage_class",
        default="default",
        help="""
The class of disks whose flavor asks for none. Its pool is reported as
``DISK_GB`` to Placement.

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
How much of each pool this host reports as its own, to Placement and as the
disk of the hypervisor. With 100, each compute host reports the whole pool, as
with the in-tree backend, so several hosts together promise more than the pool
holds. With ten hosts and 10 the sum is what the pool holds, but no host takes
more than its part.
""",
    ),
    cfg.BoolOpt(
        "encrypted_disks",
        default=False,
        help="""
Whether this host takes instances whose flavor or image asks for encrypted
disks (``hw:ephemeral_encryption``).

It needs Nova 34, Ceph's client libraries 18 or newer, libvirt 7.9, cryptsetup
and a key manager such as Barbican. Where one of them is missing, the log says
so and the scheduler places no such instance here. All disks but the config
drive are encrypted, and remain thin clones. Snapshots of such an instance, and
with them shelving, are refused. See the page on encrypted disks first.
""",
    ),
    cfg.BoolOpt(
        "allow_untested_nova",
        default=False,
        help="""
Whether nova-compute may start with a release of Nova that is newer than all
that this backend was tested with.

The backend takes part in Nova's own code. A new release may start guests, or
delete disks, in a way that the backend does not notice, so that a disk is
written by two guests. Set this only to test a new release, with disks that may
be lost. A release that visibly differs where the backend relies on it is
refused nevertheless.
""",
    ),
]

# The options of Nova that are read here, with Nova's defaults (26 to 34).
_NOVA_OPTS: dict[str | None, list[cfg.Opt]] = {
    None: [
        cfg.StrOpt("compute_driver"),
        cfg.BoolOpt("force_raw_images", default=True),
        # Nova's own default is the folder of its code; packages set this one.
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
    """Return the options for oslo-config-generator, which calls it."""
    return [
        ("DEFAULT", GENERIC_OPTS),
        (NOVA_RBD_GROUP, NOVA_RBD_OPTS),
        (class_options.option_group("name"), class_options.CLASS_OPTS),
    ]


def register(conf: cfg.ConfigOpts) -> None:
    """Register the options, before or after parsing, if not done yet."""
    conf.register_opts(GENERIC_OPTS)
    conf.register_group(NOVA_RBD_GROUP)
    conf.register_opts(NOVA_RBD_OPTS, group=NOVA_RBD_GROUP)


def register_nova_options(conf: cfg.ConfigOpts) -> None:
    """Register the options of Nova that are read here.

    For programs without Nova, and not for Nova's own configuration object.
    """
    for group, opts in _NOVA_OPTS.items():
        conf.register_opts(opts, group=group)
