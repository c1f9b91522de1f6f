# SPDX-License-Identifier: Apache-2.0

"""The settings that follow from nova.conf, as values.

The code below the Nova edge gets these values, not a configuration object.
"""

import dataclasses

from nova_rbd_backend.image_options import ImageOptions
from nova_rbd_backend.storage_classes import DEFAULT, StorageClass

BLOCKLIST_SECONDS = 7 * 24 * 3600


@dataclasses.dataclass(frozen=True)
class ClusterSettings:
    """How to connect to a Ceph cluster."""

    conf_file: str | None  # None: where librados looks by default
    user: str | None  # without "client."; None: Ceph's default, admin
    connect_timeout_seconds: int
    operation_timeout_seconds: int  # 0: no limit
    #: How long a dead client is kept from writing.
    blocklist_seconds: int = BLOCKLIST_SECONDS


@dataclasses.dataclass(frozen=True)
class Settings:
    """All options of this backend; None: the option is not set.

    The pools' names are empty unless ``images_type`` is rbd.
    """

    images_type: str
    pool: str
    snapshot_pool: str
    image_options: ImageOptions
    user: str | None
    secret_uuid: str | None
    ceph_conf: str | None
    connect_timeout_seconds: int
    operation_timeout_seconds: int
    trash_retention_seconds: int
    blocklist_seconds: int
    import_workers: int
    import_at_once: int
    detach_at_once: int
    clone_depth_soft_limit: int
    clone_depth_hard_limit: int
    storage_classes: tuple[StorageClass, ...] = ()
    default_storage_class: str = DEFAULT
    capacity_share_percent: int = 100
    freeze_limit_seconds: float = 0.8
    encrypted_disks: bool = False
    allow_untested_nova: bool = False

    @property
    def cluster(self) -> ClusterSettings:
        return ClusterSettings(
            conf_file=self.ceph_conf,
            user=self.user,
            connect_timeout_seconds=self.connect_timeout_seconds,
            operation_timeout_seconds=self.operation_timeout_seconds,
            blocklist_seconds=self.blocklist_seconds,
        )

    @property
    def classes(self) -> tuple[StorageClass, ...]:
        """All storage classes; the first is the class of ``pool``."""
        own = StorageClass(DEFAULT, self.pool, self.image_options)
        return (own, *self.storage_classes)

    @property
    def default_class(self) -> StorageClass:
        """The class of disks whose flavor asks for no class."""
        found = self.class_named(self.default_storage_class)
        assert found is not None  # conf.apply() refuses another name
        return found

    def class_named(self, name: str) -> StorageClass | None:
        """Return the class of this name, or None."""
        found = (each for each in self.classes if each.name == name)
        return next(found, None)

    def class_of_pool(self, pool: str) -> StorageClass | None:
        """Return the first class with this pool, or None."""
        found = (each for each in self.classes if each.pool == pool)
        return next(found, None)

    @property
    def uses_rbd(self) -> bool:
        return self.images_type == "rbd"

    def summary(self) -> str:
        """Return the settings as one line for logs, without secrets."""
        if not self.uses_rbd:
            return f"images_type={self.images_type}, through Nova's own code"
        facts = dataclasses.asdict(self)
        facts.update(facts.pop("image_options"))
        del facts["group"]
        facts["conf"] = dict(facts["conf"])
        facts["storage_classes"] = {
            each.name: each.pool for each in self.storage_classes
        }
        return ", ".join(f"{name}={value}" for name, value in facts.items())
