# SPDX-License-Identifier: Apache-2.0

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
