# SPDX-License-Identifier: Apache-2.0

"""What new images of a pool get: where their data lies, and how.

A value like those of :mod:`nova_rbd_backend.names`; what cannot work is
refused without a cluster.
"""

import dataclasses
from typing import NoReturn

from nova_rbd_backend import errors

KIB, MIB = 1 << 10, 1 << 20

# rbd_default_order is 22 (16.2). Taken where only the striping is given.
DEFAULT_OBJECT_BYTES = 4 * MIB
# librbd's CreateRequest: orders 12 to 25, and a unit of at least 512 bytes,
# which since 16.2 is refused below (it is not in older ones).
OBJECT_BYTES = (4 * KIB, 32 * MIB)
LEAST_STRIPE_UNIT_BYTES = 512

#: Name -> bit (librbd/features.h). Striping and a data pool have bits too,
#: which librbd sets by itself where there is one.
FEATURES = {
    "layering": 1 << 0,
    "exclusive-lock": 1 << 2,
    "object-map": 1 << 3,
    "fast-diff": 1 << 4,
    "deep-flatten": 1 << 5,
    "journaling": 1 << 6,
}
_ALWAYS = {
    "layering": "disks and snapshots are clones",
    "exclusive-lock": "without it a dead host's guest is not kept from "
    "writing, nor can there be an object map or a journal",
    "deep-flatten": "without it a snapshot keeps its deleted disk for ever",
}

# What may not be said of an image, though librbd lets one (16.2.15).
_NOT_FOR_DISKS = {
    "rbd_blocklist_": "a dead client has to be kept from writing",
    "rbd_persistent_cache_": "what a guest wrote last would be on its host "
    "alone",
    "rbd_plugins": "what a guest wrote last would be on its host alone",
}
#: Before the name of an option in an image's metadata (librbd/Utils.h).
CONF_KEY = "conf_"


@dataclasses.dataclass(frozen=True)
class Striping:
    """How an image's bytes are spread over objects.

    :ivar stripe_count: this many objects take turns, unit by unit
    """

    object_bytes: int
    stripe_unit_bytes: int
    stripe_count: int

    def __str__(self) -> str:
        return (
            f"objects of {_shown(self.object_bytes)}, stripes of "
            f"{_shown(self.stripe_unit_bytes)} over {self.stripe_count}"
        )

    @property
    def order(self) -> int:
        """The object's size as librbd has it: a power of two."""
        return self.object_bytes.bit_length() - 1

    def not_finer_than(self, parent: "Striping") -> "Striping":
        """This one, or what is next to it that suits a clone of a parent.

        A clone inherits its parent's stripe unit, and librbd (since 16.2)
        refuses one that is more than the clone's object.
        """
        unit = max(self.stripe_unit_bytes, parent.stripe_unit_bytes)
        return Striping(max(self.object_bytes, unit), unit, self.stripe_count)


@dataclasses.dataclass(frozen=True)
class ImageOptions:
    """What new images get; None and empty: what Ceph gives them.

    That is of its own defaults, and a clone gets what its parent has.

    :ivar data_pool: where their data goes, when not into their own pool
    :ivar features: names of :data:`FEATURES`
    :ivar conf: names and values of librbd's options, of disks only
    :ivar group: of nova.conf, where they are set
    """

    data_pool: str | None = None
    object_size_bytes: int | None = None
    stripe_unit_bytes: int | None = None
    stripe_count: int | None = None
    features: tuple[str, ...] = ()
    conf: tuple[tuple[str, str], ...] = ()
    group: str = dataclasses.field(default="nova_rbd", compare=False)

    @property
    def striping(self) -> Striping | None:
        """None: it is left to Ceph."""
        size, unit = self.object_size_bytes, self.stripe_unit_bytes
        if size is None and unit is None:
            return None
        size = size or DEFAULT_OBJECT_BYTES
        return Striping(size, unit or size, self.stripe_count or 1)

    @property
    def feature_bits(self) -> int | None:
        """None: they are left to Ceph."""
        if not self.features:
            return None
        return sum(FEATURES[name] for name in set(self.features))

    @property
    def conf_metadata(self) -> dict[str, str]:
        """librbd's options as they stand in an image's metadata."""
        return {f"{CONF_KEY}{name}": value for name, value in self.conf}

    def check(self) -> None:
        """Refuse what cannot work, whatever the cluster.

        :raises errors.ConfigError: which option, why, and how to mend it
        """
        self._check_striping()
        self._check_features()
        for name, _ in self.conf:
            self._check_conf(name)

    def _check_striping(self) -> None:
        size = self.object_size_bytes or DEFAULT_OBJECT_BYTES
        unit, count = self.stripe_unit_bytes, self.stripe_count
        least, most = OBJECT_BYTES
        if not least <= size <= most or size & (size - 1):
            self._refuse(
                f"object_size is {_shown(size)}, but Ceph takes powers of two "
                f"from {_shown(least)} to {_shown(most)}: set it to one"
            )
        if (unit is None) != (count is None):
            given, other = "stripe_unit", "stripe_count"
            if unit is None:
                given, other = other, given
            self._refuse(
                f"{given} is set, but {other} is not: set both, or neither"
            )
        if unit is not None and unit < LEAST_STRIPE_UNIT_BYTES:
            self._refuse(
                f"stripe_unit is {unit} bytes, less than Ceph takes: set it "
                f"to {LEAST_STRIPE_UNIT_BYTES} or more"
            )
        if unit is not None and size % unit:
            whose = "" if self.object_size_bytes else ", Ceph's default"
            self._refuse(
                f"stripe_unit is {_shown(unit)}, which does not divide the "
                f"object_size of {_shown(size)}{whose}: set it to a power of "
                "two that is not more than the object_size"
            )

    def _check_features(self) -> None:
        if not self.features:
            return
        unknown = set(self.features) - set(FEATURES)
        if unknown:
            self._refuse(
                f"image_features has {', '.join(sorted(unknown))}: take of "
                f"{', '.join(FEATURES)}"
            )
        for name, reason in _ALWAYS.items():
            if name not in self.features:
                self._refuse(
                    f"image_features lacks {name}, but {reason}: add it, or "
                    "remove the option"
                )
        # librbd leaves it out unsaid (16.2.15).
        if {"fast-diff", "object-map"} & set(self.features) == {"fast-diff"}:
            self._refuse(
                "image_features has fast-diff, which does nothing without "
                "object-map: add object-map, or remove fast-diff"
            )

    def _check_conf(self, name: str) -> None:
        if not name.startswith("rbd_"):
            self._refuse(
                f"image_conf has {name!r}, but an image can have librbd's own "
                "options only, whose names begin with rbd_: set it in "
                "ceph.conf"
            )
        for prefix, reason in _NOT_FOR_DISKS.items():
            if name.startswith(prefix):
                self._refuse(f"image_conf has {name}, but {reason}: remove it")

    def _refuse(self, reason: str) -> NoReturn:
        raise errors.ConfigError(f"[{self.group}] {reason}")


#: Nothing is asked for: all is left to Ceph.
NO_OPTIONS = ImageOptions()


def _shown(size_bytes: int) -> str:
    for unit, name in ((MIB, "MiB"), (KIB, "KiB")):
        if size_bytes % unit == 0:
            return f"{size_bytes // unit} {name}"
    return f"{size_bytes} bytes"


NO_OPTIONS = ImageOptions()
