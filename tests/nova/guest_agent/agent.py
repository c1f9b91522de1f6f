# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

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
