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
"""Instances' disks from a compute host's own storage into Ceph.

::

    stopped   domain_xml.local_disks -> stopped.bring (qemu_img.copy, compare)
              -> record -> old_disks.set_aside -> Guest.define
    running   live.convert: Guest.mirror each -> pause, pivot, snap -> record
              -> old_disks.set_aside -> Guest.define -> qemu_img.compare
    back      way_back.undo, or way_back.finish

Done by the operator on the host where the instance is; no Nova is needed.
"""
