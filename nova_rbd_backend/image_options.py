# SPDX-License-Identifier: Apache-2.0

"""Options of new images in a pool: where and how their data is stored.

Options that cannot work are refused without asking a cluster.
"""

import dataclasses
from typing import NoReturn

from nova_rbd_backend import errors

KIB, MIB = 1 << 10, 1 << 20

# rbd_default_order is 22 (16.2). Used if only the striping is given.
DEFAULT_OBJECT_BYTES = 4 * MIB
# librbd's CreateRequest takes orders 12 to 25, and since 16.2 refuses a stripe
# unit of less than 512 bytes.
OBJECT_BYTES = (4 * KIB, 32 * MIB)
LEAST_STRIPE_UNIT_BYTES = 512

#: Name -> bit (librbd/features.h), except striping and data-pool, which librbd
#: sets by itself.
FEATURES = {
    "layering": 1 << 0,
    "exclusive-lock": 1 << 2,
    "object-map": 1 << 3,
    "fast-diff": 1 << 4,
    "deep-flatten": 1 << 5,
    "journaling": 1 << 6,
}
# New images have these, whatever else they have. deep-flatten cannot be added
# to an image later.
_ALWAYS = {
    "layering": "disks and snapshots are clones",
    "exclusive-lock": "without it a dead host's guest is not kept from "
    "writing, nor can there be an object map or a journal",
    "deep-flatten": "without it a snapshot keeps its deleted disk for ever",
}

# Options that librbd takes for an image (16.2.15), but disks must not have.
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
    """How an image's bytes are spread over objects."""

    object_bytes: int
    stripe_unit_bytes: int
    stripe_count: int  # of objects that take turns, unit by unit

    def __str__(self) -> str:
        return (
            f"objects of {_shown(self.object_bytes)}, stripes of "
            f"{_shown(self.stripe_unit_bytes)} over {self.stripe_count}"
        )

    @property
    def order(self) -> int:
        """The size of the objects as the exponent of 2, as in librbd."""
        return self.object_bytes.bit_length() - 1

    def not_finer_than(self, parent: "Striping") -> "Striping":
        """Return this striping, or the next coarser one for a clone.

        A clone inherits its parent's stripe unit, and librbd (since 16.2)
        refuses a unit that is larger than the clone's objects.
        """
        unit = max(self.stripe_unit_bytes, parent.stripe_unit_bytes)
        return Striping(max(self.object_bytes, unit), unit, self.stripe_count)


@dataclasses.dataclass(frozen=True)
class ImageOptions:
    """The options of new images.

    For an option that is None or empty, a new image gets Ceph's default, and a
    clone the layout of its parent. See with_needed() for the features.
    """

    data_pool: str | None = None  # where data goes, if not into the own pool
    object_size_bytes: int | None = None
    stripe_unit_bytes: int | None = None
    stripe_count: int | None = None
    features: tuple[str, ...] = ()  # names from FEATURES
    conf: tuple[tuple[str, str], ...] = ()  # librbd's options, for disks only
    #: The group of nova.conf with these options.
    group: str = dataclasses.field(default="nova_rbd", compare=False)

    @property
    def striping(self) -> Striping | None:
        """None: as Ceph does by default."""
        size, unit = self.object_size_bytes, self.stripe_unit_bytes
        if size is None and unit is None:
            return None
        size = size or DEFAULT_OBJECT_BYTES
        return Striping(size, unit or size, self.stripe_count or 1)

    @property
    def feature_bits(self) -> int | None:
        """None: Ceph's default features."""
        if not self.features:
            return None
        return sum(FEATURES[name] for name in set(self.features))

    @property
    def conf_metadata(self) -> dict[str, str]:
        """librbd's options as an image's metadata."""
        return {f"{CONF_KEY}{name}": value for name, value in self.conf}

    def check(self) -> None:
        """Refuse options that cannot work on any cluster.

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
        # librbd silently leaves fast-diff out (16.2.15).
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


def with_needed(default: str) -> int:
    """Return the bits of Ceph's default features, and of those we need.

    Leaves out what librbd sets by itself.

    :param default: rbd_default_features: a number, or names with commas
    """
    names = {name.strip() for name in default.split(",")}
    number = int(default) if default.isdigit() else 0
    return sum(
        bit
        for name, bit in FEATURES.items()
        if name in names or number & bit or name in _ALWAYS
    )


def _shown(size_bytes: int) -> str:
    for unit, name in ((MIB, "MiB"), (KIB, "KiB")):
        if size_bytes % unit == 0:
            return f"{size_bytes // unit} {name}"
    return f"{size_bytes} bytes"


#: All options are Ceph's defaults.
NO_OPTIONS = ImageOptions()
