# SPDX-License-Identifier: Apache-2.0

"""What a nova-compute may grow by."""

import os

from tests.soak.burden import ALLOWED, Burden, grown

BEFORE = Burden(1, threads=29, files=27, memory_mib=192)


def more(**changes):
    facts = {"threads": 29, "files": 27, "memory_mib": 192, **changes}
    return Burden(2, **facts)


def test_growth_that_is_allowed():
    assert grown(BEFORE, more(threads=29 + ALLOWED.threads)) == []
    assert grown(BEFORE, more(threads=20)) == []


def test_growth_that_is_not():
    assert grown(BEFORE, more(files=28 + ALLOWED.files)) == [
        f"files: 27, then {28 + ALLOWED.files}"
    ]


def test_a_process_is_measured():
    found = Burden.of(os.getpid())
    assert found.threads >= 1
    assert found.files > 0
    assert found.memory_mib > 0
