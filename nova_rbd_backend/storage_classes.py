# SPDX-License-Identifier: Apache-2.0

"""A storage class: a pool, and how the disks in it are made.

A value like those of :mod:`nova_rbd_backend.names`. Which class a flavor asks
for is in its extra specs.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from nova_rbd_backend import errors
from nova_rbd_backend.image_options import ImageOptions

#: The class of libvirt_images_store and [nova_rbd].
DEFAULT = "default"
#: What a name has to be, as a regular expression.
NAME_PATTERN = "[a-z0-9_-]+"

#: Extra specs of a flavor; the first one counts for what no other names.
SPEC = "nova_rbd:class"
ROOT_SPEC = "nova_rbd:root_class"
EPHEMERAL_SPEC = "nova_rbd:ephemeral_class"
SWAP_SPEC = "nova_rbd:swap_class"
SPECS = (SPEC, ROOT_SPEC, EPHEMERAL_SPEC, SWAP_SPEC)

_RESOURCE_CLASS = re.compile(r"CUSTOM_RBD_[A-Z0-9_]+_GB")
# Of names of disks, without what a rescue adds.
_RESCUE = ".rescue"
_EPHEMERAL = ("disk.local", "disk.eph")


@dataclasses.dataclass(frozen=True)
class StorageClass:
    """:ivar pool: where its disks go
    :ivar image_options: what they get
    """

    name: str
    pool: str
    image_options: ImageOptions

    @property
    def resource_class(self) -> str:
        """What Placement knows its space by."""
        return resource_class(self.name)


def resource_class(name: str) -> str:
    """Placement's name for the space of a class: letters, digits and _."""
    return f"CUSTOM_RBD_{name.upper().replace('-', '_')}_GB"


def is_resource_class(name: str) -> bool:
    """Whether it may be the space of a class, be that one known or not."""
    return _RESOURCE_CLASS.fullmatch(name) is not None


def asked_for(extra_specs: Mapping[str, str], disk: str) -> str | None:
    """The class that a flavor asks for; None: it does not.

    :param disk: as in names.DiskName: ``disk``, ``disk.swap``
    """
    kind = disk.removesuffix(_RESCUE)
    own = None
    if kind == "disk":
        own = extra_specs.get(ROOT_SPEC)
    elif kind == "disk.swap":
        own = extra_specs.get(SWAP_SPEC)
    elif kind.startswith(_EPHEMERAL):
        own = extra_specs.get(EPHEMERAL_SPEC)
    return own or extra_specs.get(SPEC)


def check_names(names: Sequence[str]) -> None:
    """Refuse names that cannot be, or cannot be told apart.

    :raises errors.ConfigError: which one, and why
    """
    known: dict[str, str] = {}
    for name in names:
        if name == DEFAULT:
            _refuse(
                f"has {name!r}, which is the class of libvirt_images_store "
                "and [nova_rbd]: choose another name"
            )
        if re.fullmatch(NAME_PATTERN, name) is None:
            _refuse(
                f"has {name!r}: take a name of a-z, 0-9, '_' and '-' alone"
            )
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
