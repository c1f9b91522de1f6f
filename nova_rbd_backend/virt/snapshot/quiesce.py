# SPDX-License-Identifier: Apache-2.0

"""Keep a guest's file systems frozen while a snap of its disk is made.

Nova freezes for its own live snapshots only, and gives a backend's
direct_snapshot() no way to the guest: the driver opens a scope around its
snapshot(), in which the backend finds it.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import tenacity
from nova import exception
from nova.compute import power_state
from nova.virt.libvirt import utils as libvirt_utils
from oslo_log import log as logging

from nova_rbd_backend.virt.snapshot import frozen as marks

LOG = logging.getLogger(__name__)

#: A guest that stands still for longer misses its cluster's heartbeats. It
#: is thawed then whatever Ceph does.
LIMIT_SECONDS = 0.8
_THAW_ATTEMPTS = 5

# Green under eventlet: one value for each request.
_scope = threading.local()


@contextlib.contextmanager
def scope(driver: Any, context: Any, instance: Any) -> Iterator[None]:
    """Let frozen() reach the guest of this instance."""
    _scope.guest = _Guest(driver, context, instance)
    try:
        yield
    finally:
        del _scope.guest


def keeps_running() -> bool:
    """Whether the snapshot under way leaves its guest running.

    That is for a root disk on RBD; others are Nova's.
    """
    guest = getattr(_scope, "guest", None)
    return guest is not None and guest.is_on_rbd()


@contextlib.contextmanager
def frozen() -> Iterator[None]:
    """Freeze the guest's file systems; thaw them whatever happens within.

    A guest that does not run, or has no agent, is left as it is.

    :raises nova.exception.NovaException: it could not be frozen, or not for
        as long as it took, and its image has os_require_quiesce
    """
    guest = getattr(_scope, "guest", None)
    if guest is None or not guest.freeze():
        yield
        return
    timer = threading.Timer(LIMIT_SECONDS, guest.thaw)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        kept = guest.thaw()
    if not kept:
        guest.was_thawed_early()


class _Guest:
    """A running guest, for the time of one snapshot."""

    def __init__(self, driver: Any, context: Any, instance: Any):
        self._driver = driver
        self._context = context
        self._instance = instance
        self._lock = threading.Lock()
        self._frozen_at: float | None = None

    @property
    def _required(self) -> bool:
        properties = self._instance.image_meta.properties
        return bool(properties.get("os_require_quiesce", False))

    def is_on_rbd(self) -> bool:
        """Whether its root disk is, as Nova's snapshot() finds it."""
        guest = self._driver._host.get_guest(self._instance)
        path, _ = libvirt_utils.find_disk(guest)
        return bool(libvirt_utils.get_disk_type_from_path(path) == "rbd")

    def _runs(self) -> bool:
        host = self._driver._host
        guest = host.get_guest(self._instance)
        return bool(guest.get_power_state(host) == power_state.RUNNING)

    def freeze(self) -> bool:
        """Freeze it if that can be done; whether it was."""
        if not self._runs():
            return False
        began = time.monotonic()
        try:
            if marks.is_being_thawed(self._instance.uuid):
                raise exception.InstanceQuiesceFailed(
                    reason="it is still to be thawed after an earlier snapshot"
                )
            marks.mark(self._instance.uuid)
            self._ask(self._driver.quiesce)
        except (
            exception.QemuGuestAgentNotEnabled,
            exception.InstanceQuiesceNotSupported,
        ) as error:
            marks.unmark(self._instance.uuid)
            self._do_without(error)
            return False
        except Exception as error:
            # The agent may have frozen some of the file systems.
            if time.monotonic() - began < marks.ANSWER_SECONDS:
                with contextlib.suppress(Exception):
                    self._ask(self._driver.unquiesce)
                    marks.unmark(self._instance.uuid)
            else:  # or is going to, once what it runs before that has ended
                self._frozen_at = began
                self.thaw()
            self._do_without(error)
            return False
        self._frozen_at = time.monotonic()
        return True

    def _ask(self, what: Callable[..., None]) -> None:
        """Have Nova ask the guest's agent, who has to answer in time."""
        with marks.limited(self._driver._host, self._instance.uuid):
            what(self._context, self._instance, self._instance.image_meta)

    def _do_without(self, error: Exception) -> None:
        if self._required:
            raise error
        LOG.info(
            "The snapshot is as after a power loss, for the guest's file "
            "systems were not frozen: %s",
            error,
            instance=self._instance,
        )

    def thaw(self) -> bool:
        """Thaw it; whether that was still to be done."""
        with self._lock:
            if self._frozen_at is None:
                return False
            since, self._frozen_at = self._frozen_at, None
        attempts = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(_THAW_ATTEMPTS),
            wait=tenacity.wait_fixed(1),
            reraise=True,
        )
        try:
            attempts(self._ask, self._driver.unquiesce)
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

    def was_thawed_early(self) -> None:
        """Ceph took longer than the guest may stand still."""
        error = exception.InstanceQuiesceFailed(
            reason=f"Ceph took longer than {LIMIT_SECONDS} s to make the snap"
        )
        self._do_without(error)
