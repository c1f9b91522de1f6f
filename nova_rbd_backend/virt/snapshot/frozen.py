# SPDX-License-Identifier: Apache-2.0

"""Which guests of this host may be frozen, as a nova-compute's successor sees.

A guest whose nova-compute is killed between freeze and thaw would stand still
for ever: Nova only resets its task. So each gets a mark before it is frozen,
and what is marked when nova-compute starts is thawed.
"""

import contextlib
import functools
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import libvirt
import nova.conf
import tenacity
from oslo_log import log as logging
from oslo_utils import fileutils

from nova_rbd_backend import threads

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)
FOLDER = "nova-rbd-frozen"

#: How long an agent may take to answer, each time. What it runs before it
#: freezes may take long: Windows gives its VSS writers 60 s.
ANSWER_SECONDS = 60
_ATTEMPTS = 5

# Of guests that are still to be thawed for a predecessor.
_left: set[str] = set()


def mark(instance_uuid: str) -> None:
    """Remember that the guest is going to be frozen.

    :raises OSError: that cannot be written down
    """
    fileutils.ensure_tree(_folder())
    (_folder() / instance_uuid).touch()


def unmark(instance_uuid: str) -> None:
    """Remember that the guest is not frozen; not marked: done."""
    fileutils.delete_if_exists(_folder() / instance_uuid)


def is_being_thawed(instance_uuid: str) -> bool:
    """Whether a freeze now would be undone for what was left."""
    return instance_uuid in _left


def thaw_left(host: Any) -> None:
    """Thaw in the background what a killed nova-compute has left frozen.

    :param host: Nova's, with the connection to libvirt
    """
    if not _folder().is_dir():
        return
    _left.update(os.listdir(_folder()))
    for instance_uuid in sorted(_left):
        threads.spawn(functools.partial(_thaw, host, instance_uuid))


def _thaw(host: Any, instance_uuid: str) -> None:
    """Thaw one that is there and runs; a mark stays until it is thawed."""
    attempts = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        wait=tenacity.wait_fixed(1),
        reraise=True,
    )
    try:
        if attempts(_thawed, host, instance_uuid):
            LOG.warning(
                "Guest %s was thawed: a nova-compute that was killed while "
                "it made a snapshot may have left it frozen",
                instance_uuid,
            )
        unmark(instance_uuid)
    except Exception as error:
        LOG.error(
            "Guest %(uuid)s may be frozen since a nova-compute was killed "
            "while it made a snapshot, and could not be thawed; try "
            "`virsh domfsthaw %(uuid)s`: %(reason)s",
            {"uuid": instance_uuid, "reason": error},
        )
    finally:
        _left.discard(instance_uuid)


def _thawed(host: Any, instance_uuid: str) -> bool:
    """Thaw it; False: it does not run here (any more)."""
    try:
        guest = host.get_connection().lookupByUUIDString(instance_uuid)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return False
        raise
    if not guest.isActive():
        return False
    with limited(host, instance_uuid):
        guest.fsThaw()
    return True


@contextlib.contextmanager
def limited(host: Any, instance_uuid: str) -> Iterator[None]:
    """Have libvirt wait for the guest's agent ANSWER_SECONDS, not for ever.

    :raises libvirt.libvirtError: no such guest; within: AGENT_UNRESPONSIVE
    """
    guest = host.get_connection().lookupByUUIDString(instance_uuid)
    guest.agentSetResponseTimeout(ANSWER_SECONDS)
    try:
        yield
    finally:
        guest.agentSetResponseTimeout(
            libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK
        )


def _folder() -> pathlib.Path:
    # The instances' folder may be one that several hosts share.
    return pathlib.Path(CONF.instances_path, FOLDER, CONF.host)
