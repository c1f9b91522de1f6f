# SPDX-License-Identifier: Apache-2.0

"""Storage classes: a pool, and how the disks in it are made.

A flavor asks for a class by its extra specs.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from nova_rbd_backend import errors
from nova_rbd_backend.image_options import ImageOptions

#: The class of libvirt_images_store and [nova_rbd].
DEFAULT = "default"
#: The regular expression for the names of classes.
NAME_PATTERN = "[a-z0-9_-]+"

#: Extra specs of a flavor. SPEC is for all disks without a spec of their own.
SPEC = "nova_rbd:class"
ROOT_SPEC = "nova_rbd:root_class"
EPHEMERAL_SPEC = "nova_rbd:ephemeral_class"
SWAP_SPEC = "nova_rbd:swap_class"
SPECS = (SPEC, ROOT_SPEC, EPHEMERAL_SPEC, SWAP_SPEC)

_RESOURCE_CLASS = re.compile(r"CUSTOM_RBD_[A-Z0-9_]+_GB")


@dataclasses.dataclass(frozen=True)
class StorageClass:
    name: str
    pool: str
    image_options: ImageOptions  # for new images in the pool

    @property
    def resource_class(self) -> str:
        """Placement's name for the space of this class."""
        return resource_class(self.name)


def resource_class(name: str) -> str:
    """Return Placement's name for the space of a class: A-Z, 0-9 and _."""
    return f"CUSTOM_RBD_{name.upper().replace('-', '_')}_GB"


def is_resource_class(name: str) -> bool:
    """Return whether it may be the space of a class, known here or not."""
    return _RESOURCE_CLASS.fullmatch(name) is not None


def asked_for(extra_specs: Mapping[str, str], disk: str) -> str | None:
    """Return the class that a flavor asks for; None: it asks for no class.

    :param disk: as in names.DiskName: ``disk``, ``disk.swap``
    """
    kind = disk.removesuffix(".rescue")
    spec = SPEC
    if kind == "disk":
        spec = ROOT_SPEC
    elif kind == "disk.swap":
        spec = SWAP_SPEC
    elif kind.startswith(("disk.local", "disk.eph")):
        spec = EPHEMERAL_SPEC
    return extra_specs.get(spec) or extra_specs.get(SPEC)


def check_names(names: Sequence[str]) -> None:
    """Refuse names that are invalid, or the same in Placement.

    :raises errors.ConfigError: which name, and why
    """
    known: dict[str, str] = {}
    for name in names:
        if name == DEFAULT:
            _refuse(
                f"has {name!r}, which is the class of libvirt_images_store "
                "and [nova_rbd]: choose another name"
            )
        if re.fullmatch(NAME_PATTERN, name) is None:
            _refuse(f"has {name!r}: use only a-z, 0-9, '_' and '-'")
        other = known.setdefault(resource_class(name), name)
        if other != name:
            _refuse(
                f"has {other!r} and {name!r}, which would both be "
                f"{resource_class(name)} in Placement: rename one"
            )
    if len(set(names)) < len(names):
        _refuse("has a name twice: remove one")


def _refuse(reason: str) -> None:
    raise errors.ConfigError(f"[nova_rbd] storage_classes {reason}")
