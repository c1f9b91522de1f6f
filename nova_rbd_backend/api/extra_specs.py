# SPDX-License-Identifier: Apache-2.0

"""Let nova-api validate the storage classes in a flavor's extra specs.

Nova loads this by the entry point nova.api.extra_spec_validators, and uses it
from microversion 2.86 on. Nova does not validate older requests, so that only
nova-compute refuses a class that it does not know.
"""

from typing import Any

import nova.conf
from nova import exception
from nova.api.validation.extra_specs import base

from nova_rbd_backend import conf, storage_classes

_DISKS = {
    storage_classes.SPEC: "the disks for which no other extra spec names one",
    storage_classes.ROOT_SPEC: "the root disk, and the disk of a rescue",
    storage_classes.EPHEMERAL_SPEC: "the ephemeral disks",
    storage_classes.SWAP_SPEC: "the swap disk",
}


class ClassValidator(base.ExtraSpecValidator):
    """Accepts the classes in the nova.conf of this nova-api.

    If it has none, any valid name is accepted.
    """

    def validate(self, name: str, value: str) -> None:
        """:raises nova.exception.ValidationError: there is no such class"""
        super().validate(name, value)
        conf.register(nova.conf.CONF)
        known = conf.storage_class_names(nova.conf.CONF)
        if known and value not in (storage_classes.DEFAULT, *known):
            raise exception.ValidationError(
                f"Validation failed; '{value}' is no storage class: nova-api "
                f"knows {', '.join((*known, storage_classes.DEFAULT))} "
                "([nova_rbd] storage_classes)."
            )


def register() -> list[Any]:
    """Return the validators. Nova calls this."""
    return [
        ClassValidator(
            name=name,
            description=f"The storage class of {disks}: a Ceph pool and how "
            "disks are made in it, by its name in [nova_rbd] storage_classes. "
            "It applies to disks that are made from then on. Only supported "
            "by nova_rbd_backend.",
            value={
                "type": str,
                "description": "The name of a class.",
                "pattern": storage_classes.NAME_PATTERN,
            },
        )
        for name, disks in _DISKS.items()
    ]
