# SPDX-License-Identifier: Apache-2.0

"""Tell from a running domain's XML whether the guest's agent is there."""

from lxml import etree

_CHANNEL = "devices/channel/target[@name='org.qemu.guest_agent.0']"


def is_away(live_xml: str) -> bool:
    """Return whether libvirt has no connection to the guest's agent.

    False if the domain has no channel for an agent at all.
    """
    targets = etree.fromstring(live_xml.encode()).iterfind(_CHANNEL)
    return any(each.get("state") == "disconnected" for each in targets)
