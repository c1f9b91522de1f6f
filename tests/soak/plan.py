# SPDX-License-Identifier: Apache-2.0

"""What a run does, drawn from its seed alone: same seed, same plan.

Which server an action is done to depends on the states that the servers are in
by then, so that the plan has only a number from which the choice follows.
"""

import dataclasses
import random
from collections.abc import Iterator, Mapping

#: How many of each action are in a deck, which is dealt before it is shuffled
#: again. An action that no server is ready for is skipped.
ACTIONS = {
    "boot_raw": 3,
    "boot_qcow2": 2,
    "boot_snapshot": 3,
    "image_create": 3,
    "resize": 2,
    "migrate": 2,
    "confirm": 5,
    "revert": 4,
    "live_migrate": 3,
    "rescue": 2,
    "unrescue": 6,
    "rebuild": 2,
    "shelve": 2,
    "offload": 4,
    "unshelve": 6,
    "suspend": 1,
    "resume": 4,
    "pause": 1,
    "unpause": 4,
    "stop": 2,
    "start": 4,
    "reboot_soft": 1,
    "reboot_hard": 3,
    "attach": 2,
    "detach": 3,
    "delete": 3,
    "force_delete": 1,
    "restore": 3,
}
CEPH_FAULTS = {
    "kill_osd": 2,
    "kill_mgr": 1,
    "kill_mon": 1,
    "stop_osd": 2,
    "fill_pool": 1,
}
HOST_FAULTS = {
    "kill_compute": 2,
    "kill_qemu": 1,
    "kill_libvirtd": 1,
    "cut_off": 1,
    "cut_power": 1,
}
LANES = (3, 5)
TWICE, BUSY = 0.12, 0.12
PAUSE_SECONDS = (0.0, 1.5)
FAULT_SECONDS = (3.0, 20.0)
# Without pauses between the faults, a fault would explain every error.
QUIET_SECONDS = (10.0, 40.0)


@dataclasses.dataclass(frozen=True)
class Step:
    """One action.

    :ivar pick: which of the servers, images and flavors; below 1
    :ivar twice: ask twice at once, as somebody who clicks twice
    :ivar busy: to a server that another action is being done to
    """

    action: str
    pick: float
    twice: bool
    busy: bool
    pause_seconds: float


@dataclasses.dataclass(frozen=True)
class Fault:
    """One fault, which begins ``pause_seconds`` after the one before it.

    :ivar seconds: how long it lasts
    :ivar pick: which of the hosts, guests or OSDs; below 1
    """

    kind: str
    pause_seconds: float
    seconds: float
    pick: float


def lanes(seed: int) -> int:
    """Return how many actions are done at a time."""
    return random.Random(f"{seed} lanes").randint(*LANES)


def steps(seed: int, lane: int) -> Iterator[Step]:
    """Yield the steps of one lane, without end."""
    source = random.Random(f"{seed} lane {lane}")
    for action in _dealt(source, ACTIONS):
        yield Step(
            action,
            pick=source.random(),
            twice=source.random() < TWICE,
            busy=source.random() < BUSY,
            pause_seconds=round(source.uniform(*PAUSE_SECONDS), 2),
        )


def faults(seed: int, kinds: Mapping[str, int]) -> Iterator[Fault]:
    """Yield the faults of these kinds, one after the other, without end."""
    source = random.Random(f"{seed} faults {sorted(kinds)}")
    for kind in _dealt(source, kinds):
        yield Fault(
            kind,
            pause_seconds=round(source.uniform(*QUIET_SECONDS), 1),
            seconds=round(source.uniform(*FAULT_SECONDS), 1),
            pick=source.random(),
        )


def _dealt(source: random.Random, deck: Mapping[str, int]) -> Iterator[str]:
    while True:
        cards = [name for name, count in deck.items() for _ in range(count)]
        source.shuffle(cards)
        yield from cards
