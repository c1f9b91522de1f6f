# SPDX-License-Identifier: Apache-2.0

"""A guest agent's state, and the marks of guests that may be frozen."""

import json

import libvirt
import libvirt_qemu


def state_of(domain):
    """Return "frozen" or "thawed", or "" if the agent does not answer."""
    command = json.dumps({"execute": "guest-fsfreeze-status"})
    try:
        answer = libvirt_qemu.qemuAgentCommand(domain, command, 5, 0)
    except libvirt.libvirtError:
        return ""
    return json.loads(answer)["return"]


def marks(tmp_path):
    return list((tmp_path / "instances" / "nova-rbd-frozen").glob("*/*"))
