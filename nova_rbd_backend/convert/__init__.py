# SPDX-License-Identifier: Apache-2.0

"""Instances' disks from a compute host's own storage into Ceph.

::

    stopped   domain_xml.local_disks -> stopped.bring (qemu_img.copy, compare)
              -> record -> old_disks.set_aside -> Guest.define
    running   live.convert: Guest.mirror each -> pause, pivot, snap -> record
              -> old_disks.set_aside -> Guest.define -> qemu_img.compare
    back      way_back.undo, or way_back.finish

Done by the operator on the host where the instance is; no Nova is needed.
"""
