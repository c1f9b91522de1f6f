# SPDX-License-Identifier: Apache-2.0

"""A guest agent's state, and the marks of guests that may be frozen."""

import json

import libvirt
import libvirt_qemu


def ask(domain, command, **arguments):
    """Return an agent's answer to a command.

    :raises libvirt.libvirtError: it does not answer
    """
    text = json.dumps({"execute": command, "arguments": arguments})
    answer = libvirt_qemu.qemuAgentCommand(domain, text, 5, 0)
    return json.loads(answer)["return"]


def state_of(domain):
    """Return "frozen" or "thawed", or "" if the agent does not answer."""
    try:
        return ask(domain, "guest-fsfreeze-status")
    except libvirt.libvirtError:
        return ""


def marks(tmp_path):
    return list((tmp_path / "instances" / "nova-rbd-frozen").glob("*/*"))
