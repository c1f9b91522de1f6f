# SPDX-License-Identifier: Apache-2.0

"""How long the trash keeps images, although a host's clock may be wrong.

The host that deletes an image computes the end of its retention, and the host
that purges it compares that with its own clock, as librbd does. A wrong clock
of either host would end the retention too early. So the cluster's clock is
read too, and an image is due only when its retention is over by both.
"""

import contextlib
import datetime
import functools

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.clock import Clocks
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.ceph.trash import TrashedImage

_UNKNOWN = (
    "the OSDs do not tell their time (object class 'otp'), so that this "
    "host's clock cannot be checked: `nova-rbd trash purge --force` frees "
    "disks"
)


class Retention:
    """Tells whether the trash of a pool still has to keep an image.

    Reads the cluster's clock once, when it meets the first image that was to
    be kept for some time.
    """

    def __init__(self, pool: Pool):
        self._pool = pool
        self._asked = False

    @functools.cached_property
    def _clocks(self) -> Clocks | None:
        self._asked = True
        with contextlib.suppress(errors.NotSupported):
            return self._pool.clocks()
        return None

    def reason(self, image: TrashedImage | None) -> str | None:
        """Return, as text, why an image is kept; None: it is due."""
        if image is None:
            return None
        until = f"kept until {image.kept_until:%F %T} UTC"
        # Also of an image that is kept anyway, so that a clock which is behind
        # is noticed.
        clocks = self._clocks if image.is_retained else None
        if image.kept_until > datetime.datetime.now(datetime.UTC):
            return until
        if not image.is_retained:
            return None
        if clocks is None:
            return f"{until}; {_UNKNOWN}"
        if image.kept_until > clocks.now():
            said = (f"{until} by the cluster's clock", clocks.remark)
            return "; ".join(filter(None, said))
        return None

    @property
    def remark(self) -> str | None:
        """What is wrong with this host's clock, as far as that was asked."""
        if not self._asked:
            return None
        return _UNKNOWN if self._clocks is None else self._clocks.remark


def delay_seconds(pool: Pool, retention_seconds: int) -> int:
    """Return for how long an image that is deleted now has to be kept.

    If this host's clock is behind the cluster's, that is longer by the
    difference. Sends no request if there is no retention.
    """
    if not retention_seconds:
        return 0
    with contextlib.suppress(errors.NotSupported):
        return retention_seconds + int(pool.clocks().behind_seconds)
    return retention_seconds
