# SPDX-License-Identifier: Apache-2.0

"""The actions of a server's life: when each can be asked, where it ends."""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any


class Data(enum.Enum):
    """What an action does to the data on a server's root disk."""

    KEEPS = enum.auto()
    REPLACES = enum.auto()
    # Back to what it was before the resize or migration.
    TAKES_BACK = enum.auto()
    # The guest runs from another disk, and later from this one again.
    HIDES = enum.auto()
    SHOWS = enum.auto()


@dataclasses.dataclass(frozen=True)
class Action:
    """One action of Nova's API.

    :ivar body: of the request; strings in braces are filled in, see lanes
    :ivar at: the statuses in which it can be asked
    :ivar ends: the statuses in which it has ended, without a task
    """

    name: str
    body: object
    at: frozenset[str]
    ends: frozenset[str]
    data: Data = Data.KEEPS

    def fits(self, server: Mapping[str, Any]) -> bool:
        """Return whether it can be asked for a server as Nova shows it."""
        volumes = server.get("os-extended-volumes:volumes_attached")
        return server["status"] in self.at and (
            self.name != "detach" or bool(volumes)
        )


def _action(
    name: str, body: object, at: str, ends: str = "", data: Data = Data.KEEPS
) -> Action:
    begin = frozenset(at.split())
    return Action(name, body, begin, frozenset(ends.split()) or begin, data)


_ON_OR_OFF = "ACTIVE SHUTOFF"
_ANY = (
    "ACTIVE SHUTOFF PAUSED SUSPENDED VERIFY_RESIZE RESCUE SHELVED "
    "SHELVED_OFFLOADED ERROR BUILD"
)

ACTIONS = {
    action.name: action
    for action in (
        _action(
            "image_create",
            {"createImage": {"name": "{name}"}},
            "ACTIVE SHUTOFF PAUSED SUSPENDED",
        ),
        _action(
            "resize",
            {"resize": {"flavorRef": "{bigger}"}},
            _ON_OR_OFF,
            "VERIFY_RESIZE",
        ),
        _action("migrate", {"migrate": None}, _ON_OR_OFF, "VERIFY_RESIZE"),
        _action(
            "confirm", {"confirmResize": None}, "VERIFY_RESIZE", _ON_OR_OFF
        ),
        _action(
            "revert",
            {"revertResize": None},
            "VERIFY_RESIZE",
            _ON_OR_OFF,
            Data.TAKES_BACK,
        ),
        _action(
            "live_migrate",
            {"os-migrateLive": {"host": None, "block_migration": "auto"}},
            "ACTIVE",
        ),
        _action("rescue", {"rescue": {}}, _ON_OR_OFF, "RESCUE", Data.HIDES),
        _action(
            "unrescue", {"unrescue": None}, "RESCUE", "ACTIVE", Data.SHOWS
        ),
        _action(
            "rebuild",
            {"rebuild": {"imageRef": "{image}"}},
            "ACTIVE SHUTOFF ERROR",
            _ON_OR_OFF,
            Data.REPLACES,
        ),
        _action(
            "shelve",
            {"shelve": None},
            "ACTIVE SHUTOFF PAUSED SUSPENDED",
            "SHELVED SHELVED_OFFLOADED",
        ),
        _action(
            "offload", {"shelveOffload": None}, "SHELVED", "SHELVED_OFFLOADED"
        ),
        _action(
            "unshelve",
            {"unshelve": None},
            "SHELVED SHELVED_OFFLOADED",
            _ON_OR_OFF,
        ),
        _action("suspend", {"suspend": None}, "ACTIVE", "SUSPENDED"),
        _action("resume", {"resume": None}, "SUSPENDED", "ACTIVE"),
        _action("pause", {"pause": None}, "ACTIVE", "PAUSED"),
        _action("unpause", {"unpause": None}, "PAUSED", "ACTIVE"),
        _action("stop", {"os-stop": None}, "ACTIVE", "SHUTOFF"),
        _action("start", {"os-start": None}, "SHUTOFF", "ACTIVE"),
        _action("reboot_soft", {"reboot": {"type": "SOFT"}}, "ACTIVE"),
        _action(
            "reboot_hard",
            {"reboot": {"type": "HARD"}},
            "ACTIVE SHUTOFF PAUSED SUSPENDED ERROR",
            "ACTIVE",
        ),
        _action(
            "restore",
            {"restore": None},
            "SOFT_DELETED",
            _ON_OR_OFF,
        ),
        # A server that is gone counts as SOFT_DELETED here.
        _action("delete", None, _ANY, "SOFT_DELETED"),
        _action(
            "force_delete",
            {"forceDelete": None},
            f"{_ANY} SOFT_DELETED",
            "GONE",
        ),
        _action("attach", {"volumeId": "{volume}"}, _ON_OR_OFF),
        _action("detach", None, _ON_OR_OFF),
    )
}
BOOTS = ("boot_raw", "boot_qcow2", "boot_snapshot")
#: The flavors, and which of them a server can be resized to.
FLAVORS = {
    "soak-1": {"disk_gib": 1},
    "soak-2": {"disk_gib": 2},
    "soak-all-1": {"disk_gib": 1, "ephemeral_gib": 1, "swap_mib": 64},
    "soak-all-2": {"disk_gib": 2, "ephemeral_gib": 1, "swap_mib": 128},
}
BIGGER = {"soak-1": "soak-2", "soak-all-1": "soak-all-2"}
