# SPDX-License-Identifier: Apache-2.0

"""What nova-api lets be said of storage classes in a flavor.

Nova loads this by its entry point nova.api.extra_spec_validators, and asks it
from microversion 2.86 on. An older request is not looked at by Nova at all:
then it is nova-compute that refuses a class that it does not know.
"""

from typing import Any

import nova.conf
from nova import exception
from nova.api.validation.extra_specs import base

from nova_rbd_backend import conf
from nova_rbd_backend.storage_classes import (
    DEFAULT,
    EPHEMERAL_SPEC,
    NAME_PATTERN,
    ROOT_SPEC,
    SPEC,
    SWAP_SPEC,
)

_DISKS = {
    SPEC: "the disks for which no other extra spec names one",
    ROOT_SPEC: "the root disk, and the disk of a rescue",
    EPHEMERAL_SPEC: "the ephemeral disks",
    SWAP_SPEC: "the swap disk",
}


class ClassValidator(base.ExtraSpecValidator):
    """Takes the classes that this nova-api's nova.conf names.

    Where it names none every name passes that could be one.
    """

    def validate(self, name: str, value: str) -> None:
        """Refuse a class that there cannot be.

        :raises nova.exception.ValidationError: Nova answers with it
        """
        super().validate(name, value)
        conf.register(nova.conf.CONF)
        known = conf.storage_class_names(nova.conf.CONF)
        if known and value not in (DEFAULT, *known):
            raise exception.ValidationError(
                f"Validation failed; '{value}' is no storage class: "
                f"[nova_rbd] storage_classes of nova-api has "
                f"{', '.join(known)}, and there is {DEFAULT}."
            )


def register() -> list[Any]:
    """The validators; called by Nova."""
    return [
        ClassValidator(
            name=name,
            description=f"The storage class of {disks}: a Ceph pool and how "
            "disks are made in it, by its name in [nova_rbd] storage_classes. "
            "Of disks that are made from then on. Only supported by "
            "nova_rbd_backend.",
            value={
                "type": str,
                "description": "The name of a class.",
                "pattern": NAME_PATTERN,
            },
        )
        for name, disks in _DISKS.items()
    ]
