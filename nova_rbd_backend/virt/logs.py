# SPDX-License-Identifier: Apache-2.0

"""Keep the exceptions of others out of this backend's log lines.

oslo.log ends each line from WARNING on with the name and text of the exception
that is being handled at that moment (formatters.py, _get_error_summary). Nova
often calls this backend while it handles one that has nothing to do with the
line, and where one of ours has to do with it, the line says so itself.
"""

import logging

_OURS = "nova_rbd_backend"


class _Alone(logging.Handler):
    """Passes records on as if no exception were handled now.

    oslo.log leaves out some of Python's own exceptions, ValueError among them.
    A line that is given an exception (``exc_info``) keeps it.
    """

    def handle(self, record: logging.LogRecord) -> bool:
        # Without the lock of a Handler: those that write have their own.
        try:
            raise ValueError
        except ValueError:
            logging.getLogger().callHandlers(record)
        return True


def stand_alone() -> None:
    """Write this backend's lines without the exception that is handled.

    Changes nothing if the operator has given its logger handlers of its own.
    """
    ours = logging.getLogger(_OURS)
    if ours.propagate and not ours.handlers:
        ours.addHandler(_Alone())
        ours.propagate = False
