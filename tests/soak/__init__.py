# SPDX-License-Identifier: Apache-2.0

"""Random actions and faults on a whole OpenStack, then checks.

``plan`` says what is done, from a seed alone. ``lanes`` do the ``actions`` to
the servers of a ``fleet`` while ``disasters`` cause the faults. ``counters``
and ``writers`` watch the guests and their disks meanwhile. At the end all is
healed and deleted (``ending``), and ``remains``, ``complaints`` and ``burden``
say what is left, what was logged, and what nova-compute has grown by.
``journey`` keeps what happened; ``soak`` is one run of all this.
"""
