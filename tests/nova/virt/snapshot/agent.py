# SPDX-License-Identifier: Apache-2.0

"""What a guest's agent says, and what a nova-compute noted of it."""

import json

import libvirt
import libvirt_qemu


def state_of(domain):
    """What the agent says: frozen or thawed; empty: it does not answer."""
    command = json.dumps({"execute": "guest-fsfreeze-status"})
    try:
        answer = libvirt_qemu.qemuAgentCommand(domain, command, 5, 0)
    except libvirt.libvirtError:
        return ""
    return json.loads(answer)["return"]


def marks(tmp_path):
    return list((tmp_path / "instances" / "nova-rbd-frozen").glob("*/*"))
