# SPDX-License-Identifier: Apache-2.0

"""Mark guests that may be frozen, for the next start of nova-compute.

If nova-compute is killed between freeze and thaw the guest would stay frozen
for ever, because Nova only resets its task. Each guest is therefore marked
before it is frozen. nova-compute thaws all marked guests when it starts.
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

#: How long a guest's agent may take for each answer. Its preparations before a
#: freeze may take long: Windows gives its VSS writers 60 s.
ANSWER_SECONDS = 60
_ATTEMPTS = 5

# UUIDs of guests that thaw_left() has yet to thaw.
_left: set[str] = set()


def mark(instance_uuid: str) -> None:
    """Mark a guest that is going to be frozen.

    :raises OSError: the mark cannot be written
    """
    fileutils.ensure_tree(_folder())
    (_folder() / instance_uuid).touch()


def unmark(instance_uuid: str) -> None:
    """Remove the mark of a guest that is not frozen, if it has one."""
    fileutils.delete_if_exists(_folder() / instance_uuid)


def is_being_thawed(instance_uuid: str) -> bool:
    """Return whether thaw_left() has yet to thaw the guest, frozen or not."""
    return instance_uuid in _left


def thaw_left(host: Any) -> None:
    """Thaw in the background what a killed nova-compute has left frozen.

    :param host: Nova's Host, which has the connection to libvirt
    """
    if not _folder().is_dir():
        return
    _left.update(os.listdir(_folder()))
    for instance_uuid in sorted(_left):
        threads.spawn(functools.partial(_thaw, host, instance_uuid))


def _thaw(host: Any, instance_uuid: str) -> None:
    """Thaw a guest that runs here; keep its mark if it cannot be thawed."""
    try:
        if attempts()(_thawed, host, instance_uuid):
            LOG.warning(
                "Guest %s was thawed. It may have been left frozen by a "
                "snapshot during which nova-compute was killed or the guest's "
                "agent failed",
                instance_uuid,
            )
        unmark(instance_uuid)
    except Exception as error:
        LOG.error(
            "Guest %(uuid)s could not be thawed. It may have been left frozen "
            "by a snapshot during which nova-compute was killed or the "
            "guest's agent failed; try `virsh domfsthaw %(uuid)s`: %(reason)s",
            {"uuid": instance_uuid, "reason": error},
        )
    finally:
        _left.discard(instance_uuid)


def _thawed(host: Any, instance_uuid: str) -> bool:
    """Thaw a guest; return False if it does not run here any more."""
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


def attempts() -> tenacity.Retrying:
    """Return how often and when to try a thaw; the last error is raised."""
    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        wait=tenacity.wait_fixed(1),
        reraise=True,
    )


@contextlib.contextmanager
def limited(host: Any, instance_uuid: str) -> Iterator[None]:
    """Let libvirt wait for the guest's agent ANSWER_SECONDS, not for ever.

    After that the calls within the block raise AGENT_UNRESPONSIVE, or
    AGENT_COMMAND_TIMEOUT with newer libvirts.

    :raises libvirt.libvirtError: there is no such guest
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
    # Several hosts may share the instances' folder.
    return pathlib.Path(CONF.instances_path, FOLDER, CONF.host)
