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

"""Keep the disks of Nova's instances on Ceph RBD.

The great paths::

    boot      virt.driver -> virt.imagebackend.Rbd.create_image
              -> storage.provision: clone or import as a draft, grow, publish
              -> virt.disk_xml
    start     virt.driver._create_guest -> storage.fencing: no guest beside one
              that lives, none that waits for one that died
    delete    virt.driver._cleanup_rbd -> storage.trash: move to the trash
              -> virt.purger: give the space back in the background
    snapshot  virt.driver.snapshot -> virt.imagebackend.Rbd.direct_snapshot
              -> virt.snapshot: freeze, storage.snapshots: snap, thaw,
              clone, publish -> virt.image_service: Glance
              -> virt.detacher: storage.detaching copies in the background
    revert    virt.imagebackend.Rbd.rollback_to_snap -> storage.rollback

In which pool a disk is: virt.disk_place -> virt.known_pools
-> storage.pool_registry.

Rooms: ``conf`` has the options, ``virt`` what nova-compute loads, ``api``
what nova-api loads, ``storage`` all that talks to Ceph, ``cmd`` the operator's
tools, ``convert`` what brings local disks into Ceph. Imports go downwards
only: cmd -> convert, virt -> storage -> names, errors.
"""
