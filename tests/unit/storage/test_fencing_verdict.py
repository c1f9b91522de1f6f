# SPDX-License-Identifier: Apache-2.0

"""Which of the clients that hold a disk count as dead."""

import dataclasses

import pytest

from nova_rbd_backend.ceph.holders import Answer, Client
from nova_rbd_backend.storage.fencing import Verdict, judge

OWN = Client(1, "host:0/1", None, True)
OWNER = Client(2, "host:0/2", "auto 2", True)
IDLE = Client(3, "host:0/3", None, True)
LAPSED = dataclasses.replace(OWNER, watches=False)
LEFT = Client(4, "host:0/4", "auto 4", False)  # its watch has lapsed

LEFT_MIRROR = Client(5, "host:0/5", "auto 5", False)

SILENT = Answer(silent=True)
ALIVE = Verdict(alive=True)
UNCLEAR = Verdict(unclear=True)


def awake(*clients):
    return Answer(frozenset(client.client_id for client in clients))


@pytest.mark.parametrize(
    ("before", "answer", "after", "expected"),
    [
        ([], Answer(), [], Verdict()),
        ([OWN], awake(OWN), [OWN], Verdict()),
        ([OWN], SILENT, [OWN], Verdict()),
        # the only client does not answer
        ([OWNER], SILENT, [OWNER], Verdict(dead=(OWNER,))),
        ([IDLE], SILENT, [IDLE], Verdict(dead=(IDLE,))),
        # a client answers
        ([OWNER], awake(OWNER), [OWNER], Verdict(alive=True)),
        ([OWN, IDLE], awake(OWN, IDLE), [OWN, IDLE], Verdict(alive=True)),
        # the lock's owner no longer watches
        ([LEFT], Answer(), [LEFT], Verdict(dead=(LEFT,))),
        ([LEFT], SILENT, [LEFT], Verdict(dead=(LEFT,))),
        (
            [LEFT, IDLE],
            awake(IDLE),
            [LEFT, IDLE],
            Verdict(dead=(LEFT,), alive=True),
        ),
        ([LEFT, IDLE], SILENT, [LEFT, IDLE], Verdict(dead=(LEFT, IDLE))),
        # which of two clients is silent is not known
        ([OWNER, IDLE], SILENT, [OWNER, IDLE], Verdict(unclear=True)),
        ([OWN, OWNER], SILENT, [OWN, OWNER], Verdict(unclear=True)),
        ([OWN, OWNER], SILENT, [OWNER], Verdict(unclear=True)),
        ([OWNER], SILENT, [OWN, OWNER], Verdict(unclear=True)),
        ([OWNER, IDLE], SILENT, [OWNER], Verdict(unclear=True)),
        # a client that came or went meanwhile is never dead
        ([], SILENT, [OWNER], Verdict(unclear=True)),
        ([], Answer(), [LEFT], Verdict(unclear=True)),
        # a client whose watch lapsed meanwhile is dead the next time
        ([OWNER], SILENT, [LAPSED], Verdict(unclear=True)),
        ([OWNER], Answer(), [LAPSED], Verdict(unclear=True)),
        ([LAPSED], Answer(), [LAPSED], Verdict(dead=(LAPSED,))),
        ([OWNER], SILENT, [IDLE], Verdict(unclear=True)),
        ([OWNER], awake(OWNER), [], Verdict()),
        ([], Answer(), [IDLE], Verdict(unclear=True)),
        ([IDLE], SILENT, [OWNER, IDLE], Verdict(unclear=True)),
        # the OSD was too slow to say anything
        ([OWNER], None, [OWNER], Verdict(unclear=True)),
        ([LEFT], None, [LEFT], Verdict(unclear=True)),
        ([OWN], None, [OWN], Verdict()),
    ],
)
def test_judge(before, answer, after, expected):
    found = judge(before, answer, after, OWN.client_id)
    assert set(found.dead) == set(expected.dead)
    assert (found.alive, found.unclear) == (expected.alive, expected.unclear)


@pytest.mark.parametrize(
    ("before", "answer", "after", "expected"),
    [
        # rbd-mirror is not a guest, alive or silent, with or without a lock
        ([IDLE], awake(IDLE), [IDLE], Verdict()),
        ([IDLE], SILENT, [IDLE], Verdict()),
        ([LEFT_MIRROR], Answer(), [LEFT_MIRROR], Verdict()),
        ([IDLE, OWNER], awake(IDLE), [IDLE], Verdict()),
        # a guest beside rbd-mirror
        ([IDLE, OWNER], awake(IDLE, OWNER), [IDLE, OWNER], ALIVE),
        ([IDLE, OWNER], SILENT, [IDLE, OWNER], UNCLEAR),
        ([IDLE, OWNER], SILENT, [OWNER], UNCLEAR),
        ([IDLE, LEFT], awake(IDLE), [IDLE, LEFT], Verdict(dead=(LEFT,))),
    ],
)
def test_judge_beside_rbd_mirror(before, answer, after, expected):
    mirrors = awake(IDLE, LEFT_MIRROR)
    assert judge(before, answer, after, OWN.client_id, mirrors) == expected


@pytest.mark.parametrize(
    ("client", "answer", "expected"),
    [
        (OWNER, SILENT, UNCLEAR),
        (OWNER, awake(OWNER), UNCLEAR),
        (IDLE, SILENT, UNCLEAR),
        (LEFT, Answer(), Verdict(dead=(LEFT,))),
        (OWN, SILENT, Verdict()),
    ],
)
def test_judge_while_rbd_mirror_is_silent(client, answer, expected):
    found = judge([client], answer, [client], OWN.client_id, SILENT)
    assert found == expected


@pytest.mark.parametrize(
    ("client", "answer", "expected"),
    [
        (OWNER, SILENT, Verdict(dead=(OWNER,))),
        (OWNER, awake(OWNER), ALIVE),
        (IDLE, awake(IDLE), ALIVE),
        # this watch may be all that is left of a dead daemon
        (IDLE, SILENT, UNCLEAR),
    ],
)
def test_judge_where_rbd_mirror_has_gone(client, answer, expected):
    found = judge([client], answer, [client], OWN.client_id, awake())
    assert found == expected
