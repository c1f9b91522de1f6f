# SPDX-License-Identifier: Apache-2.0

"""Compare this host's clock with the cluster's.

The monitors tell nobody their time. So the cluster's clock is that of the OSD
which has the pool's rbd_directory. Either clock may be wrong.
"""

import dataclasses
import datetime
import time

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import layouts
from nova_rbd_backend.ceph.access import Access

#: A difference that the operator need not know.
TOLERATED_SECONDS = 60.0
# It exists in every pool that has, or had, an image.
_ASKED = layouts.DIRECTORY


@dataclasses.dataclass(frozen=True)
class Clocks:
    """Both clocks, as they were read at one moment.

    :ivar ahead_seconds: of this host's clock; negative if it is behind; 0 if
        the difference is less than the time of the request
    :ivar behind_seconds: the most by which this host's clock may be behind
    :ivar cluster: the cluster's clock
    :ivar monotonic: when it was read, as time.monotonic() has it
    """

    ahead_seconds: float
    behind_seconds: float
    cluster: float
    monotonic: float

    def now(self) -> datetime.datetime:
        """Return the time now, by the clock that is behind the other one.

        Time that is over by this clock is over by both. This host's clock may
        have been set since the clocks were read.
        """
        cluster = self.cluster + time.monotonic() - self.monotonic
        earlier = min(cluster, time.time())
        return datetime.datetime.fromtimestamp(earlier, datetime.UTC)

    @property
    def remark(self) -> str | None:
        """What the operator should know, if the clocks differ too much."""
        if abs(self.ahead_seconds) <= TOLERATED_SECONDS:
            return None
        side = "ahead of" if self.ahead_seconds > 0 else "behind"
        return (
            f"this host's clock is {abs(self.ahead_seconds):.0f} s {side} the "
            "cluster's: set the wrong one right"
        )


def read(access: Access) -> Clocks:
    """Read both clocks. Blocks. cls_otp: get_current_time.

    :raises ImageNotFound: the pool never had an image
    :raises NotSupported: the OSDs do not tell their time
    """
    method = ("otp", "get_current_time")
    before = time.time()
    try:
        answer = access.execute(
            "read the clock of", _ASKED, _ASKED, method, layouts.clock()
        )
    except (errors.NotSupported, errors.NotPermitted) as error:
        raise errors.NotSupported(
            "the OSDs do not tell their time: they, or the caps of this user, "
            f"do not allow class 'otp': {error.reason}",
            operation=error.operation,
            pool=str(access),
        ) from error
    after, cluster = time.time(), layouts.time_of_clock(answer)
    return Clocks(
        max(0.0, before - cluster) + min(0.0, after - cluster),
        max(0.0, cluster - before),
        cluster,
        time.monotonic(),
    )
