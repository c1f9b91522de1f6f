# SPDX-License-Identifier: Apache-2.0

"""Tell for how long a host has the turn to do periodic work for all hosts."""

import nova.conf

CONF = nova.conf.CONF

# The period of Nova's periodic task if its interval is 0 (oslo.service).
_SHORTEST_PERIOD_SECONDS = 60

# A turn is shorter than the period, so that it has ended when the host that
# had it begins its own next period.
_OF_PERIOD = 0.9


def seconds() -> int:
    """Return the length of a turn."""
    interval = CONF.image_cache.manager_interval
    return int(max(_SHORTEST_PERIOD_SECONDS, interval) * _OF_PERIOD)
