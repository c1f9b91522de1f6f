# SPDX-License-Identifier: Apache-2.0

"""Keep a guest's file systems frozen while a snap of its disk is made.

Nova freezes a guest only for its own live snapshots, and does not give the
guest to a backend's direct_snapshot(). Our driver therefore opens a scope
around its snapshot(), in which the backend finds the guest.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from nova import exception
from nova.compute import power_state
from nova.virt.libvirt import utils as libvirt_utils
from oslo_log import log as logging

from nova_rbd_backend.domains import agent
from nova_rbd_backend.virt import edge
from nova_rbd_backend.virt.snapshot import frozen as marks

LOG = logging.getLogger(__name__)

_NO_AGENT = (
    exception.QemuGuestAgentNotEnabled,
    exception.InstanceQuiesceNotSupported,
)

# One value for each request; eventlet makes it local to the greenlet.
_scope = threading.local()


@contextlib.contextmanager
def scope(driver: Any, context: Any, instance: Any) -> Iterator[None]:
    """Let frozen() and keeps_running() know the guest of a snapshot."""
    _scope.guest = _Guest(driver, context, instance)
    try:
        yield
    finally:
        del _scope.guest


def keeps_running() -> bool:
    """Return whether the snapshot under way leaves its guest running.

    It does so if the root disk is on RBD. Other disks are left to Nova.
    """
    guest = getattr(_scope, "guest", None)
    return guest is not None and guest.is_on_rbd()


@contextlib.contextmanager
def frozen() -> Iterator[None]:
    """Freeze the guest's file systems, and thaw them whatever happens within.

    A guest that does not run or has no agent is not frozen. It is thawed after
    freeze_limit_seconds at the latest, whatever Ceph does.

    :raises nova.exception.NovaException: the image has os_require_quiesce, but
        the guest could not be frozen, or was thawed before the end
    """
    guest = getattr(_scope, "guest", None)
    if guest is None or not guest.freeze():
        yield
        return
    limit_seconds = edge.settings().freeze_limit_seconds
    timer = threading.Timer(limit_seconds, guest.thaw)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        # A thaw that goes on could undo the freeze of the next snapshot.
        timer.join()
        was_frozen = guest.thaw()
    if not was_frozen:
        guest.do_without(
            _failed(
                f"Ceph took longer than {limit_seconds:g} s to make the snap "
                "([nova_rbd] freeze_limit_seconds)"
            )
        )


def _failed(reason: str) -> exception.NovaException:
    # Nova 26 does not have this class.
    novas = getattr(exception, "InstanceQuiesceFailed", None)
    return novas(reason=reason) if novas else exception.Invalid(reason)


class _Guest:
    """A running guest, for the time of one snapshot."""

    def __init__(self, driver: Any, context: Any, instance: Any):
        self._driver = driver
        self._context = context
        self._instance = instance
        self._lock = threading.Lock()
        self._frozen_at: float | None = None

    def is_on_rbd(self) -> bool:
        """Find the root disk as Nova's snapshot() does; is it on RBD?"""
        guest = self._driver._host.get_guest(self._instance)
        path, _ = libvirt_utils.find_disk(guest)
        return bool(libvirt_utils.get_disk_type_from_path(path) == "rbd")

    def freeze(self) -> bool:
        """Freeze the guest if possible; return whether it is frozen now."""
        host, uuid = self._driver._host, self._instance.uuid
        guest = host.get_guest(self._instance)
        if guest.get_power_state(host) != power_state.RUNNING:
            return False
        reason = None
        if marks.is_being_thawed(uuid):
            reason = "it is still to be thawed after an earlier snapshot"
        elif agent.is_away(guest.get_xml_desc()):
            reason = "its agent is not connected"
        if reason is not None:
            self.do_without(_failed(reason))
            return False
        began = time.monotonic()
        try:
            marks.mark(uuid)
            self._ask(self._driver.quiesce)
        except Exception as error:
            if isinstance(error, _NO_AGENT):
                marks.unmark(uuid)
            elif time.monotonic() - began < marks.ANSWER_SECONDS:
                # The agent may have frozen some of the file systems.
                self._thaw_after_failure(error)
            else:
                # It may also freeze them when its preparations have ended.
                self._frozen_at = began
                self.thaw()
            self.do_without(error)
            return False
        self._frozen_at = time.monotonic()
        return True

    def _thaw_after_failure(self, failure: Exception) -> None:
        """Thaw a guest whose agent answered a freeze with an error."""
        try:
            self._ask(self._driver.unquiesce)
        except Exception as error:
            # The mark stays: the next nova-compute tries again.
            LOG.warning(
                "The guest's agent neither froze nor thawed its file systems "
                "(%s; %s). If the guest hangs, try `virsh domfsthaw`",
                failure,
                error,
                instance=self._instance,
            )
        else:
            marks.unmark(self._instance.uuid)

    def _ask(self, what: Callable[..., None]) -> None:
        """Let Nova ask the guest's agent, which has to answer in time."""
        with marks.limited(self._driver._host, self._instance.uuid):
            what(self._context, self._instance, self._instance.image_meta)

    def do_without(self, error: Exception) -> None:
        """Go on with a guest that is not frozen, unless its image forbids it.

        :raises Exception: the error, if the image has os_require_quiesce
        """
        if self._instance.image_meta.properties.get("os_require_quiesce"):
            if isinstance(error, exception.InternalError):
                # Nova (34) does not know AGENT_COMMAND_TIMEOUT, by which newer
                # libvirts (11.3) say what was AGENT_UNRESPONSIVE.
                raise _failed(str(error)) from error
            raise error
        LOG.info(
            "The snapshot is as after a power loss, because the guest's file "
            "systems were not frozen: %s",
            error,
            instance=self._instance,
        )

    def thaw(self) -> bool:
        """Thaw the guest; return whether it was frozen until now."""
        with self._lock:
            if self._frozen_at is None:
                return False
            since, self._frozen_at = self._frozen_at, None
        try:
            marks.attempts()(self._ask, self._driver.unquiesce)
        except Exception as error:
            LOG.error(
                "The guest's file systems could not be thawed after a "
                "snapshot; try `virsh domfsthaw`: %s",
                error,
                instance=self._instance,
            )
            return True
        marks.unmark(self._instance.uuid)
        LOG.info(
            "The guest's file systems were frozen for %.3f s",
            time.monotonic() - since,
            instance=self._instance,
        )
        return True
