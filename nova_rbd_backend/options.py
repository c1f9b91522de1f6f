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

"""Every option: their definitions, for oslo.config and for the sample file."""

from oslo_config import cfg

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
        "import_workers",
        default=4,
        min=1,
        max=64,
        help="""
Parallel writes for one image that has to be copied into Ceph.
""",
    ),
    cfg.StrOpt(
        "data_pool",
        sample_default="vms-data",
        help="""
Pool for the data of new disks, usually an erasure-coded one; names and
metadata stay in the pool of ``libvirt_images_store``. When unset the data goes
there too. Disks that exist are not moved.
""",
    ),
]

# Options of Nova that are read here, with Nova's defaults (26 to 34).
_NOVA_OPTS: dict[str | None, list[cfg.Opt]] = {
    None: [
        cfg.StrOpt("compute_driver"),
        cfg.BoolOpt("force_raw_images", default=True),
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
        cfg.StrOpt("virt_type", default="kvm"),
        cfg.StrOpt("connection_uri", default=""),
    ],
    "ephemeral_storage_encryption": [cfg.BoolOpt("enabled", default=False)],
}


def list_opts() -> list[tuple[str | cfg.OptGroup, list[cfg.Opt]]]:
    """Return the options for oslo-config-generator."""
    return [("DEFAULT", GENERIC_OPTS), (NOVA_RBD_GROUP, NOVA_RBD_OPTS)]


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
