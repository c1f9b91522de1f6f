# SPDX-License-Identifier: Apache-2.0

"""Log what lasts without repeating it at every run of a background work."""

import contextlib
import re
import time
from collections.abc import Callable, Iterator

#: How often a state that does not change is logged.
AGAIN_SECONDS = 24 * 3600.0

# An error's text has the ID of its request or message, which no other has:
# keystoneauth's "(Request-ID: req-UUID)", oslo.messaging's "message ID HEX".
_FRESH = re.compile(
    r"\b[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\b", re.IGNORECASE
)


class States:
    """The lasting states that one background work has found and logged.

    A state is logged when it begins, when it changes, and once a day.
    """

    def __init__(self) -> None:
        # What -> how it is, and when that was last logged.
        self._logged: dict[str, tuple[str, float]] = {}
        self._found: set[str] = set()
        self._looks_at_all = True

    @contextlib.contextmanager
    def run(self) -> Iterator[None]:
        """Forget, at the end, the states that this run has not found again.

        If the run raises it has not looked at everything, and nothing is
        forgotten, as after keep().
        """
        self._found = set()
        self._looks_at_all = True
        yield
        # What was logged a day ago would be logged again anyway.
        since = time.monotonic() - AGAIN_SECONDS
        self._logged = {
            what: (state, logged_at)
            for what, (state, logged_at) in self._logged.items()
            if what in self._found
            or not (self._looks_at_all or logged_at < since)
        }

    def keep(self) -> None:
        """Forget nothing at the end of this run.

        For a run that does not look at everything, for example because
        another host is at work, or a pool gives no answer.
        """
        self._looks_at_all = False

    def tell(
        self, what: str, state: str, log: Callable[..., None], *args: object
    ) -> None:
        """Log a state, unless it has been logged lately.

        :param what: has the state, such as an image
        :param state: a change of it is logged; without ages and the like.
            UUIDs in it are not compared
        :param log: such as LOG.warning, which is called with ``args``
        """
        now = time.monotonic()
        state = _FRESH.sub("ID", state)
        self._found.add(what)
        if what in self._logged:
            before, logged_at = self._logged[what]
            if before == state and now - logged_at < AGAIN_SECONDS:
                return
        self._logged[what] = (state, now)
        log(*args)
