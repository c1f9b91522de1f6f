# SPDX-License-Identifier: Apache-2.0

"""Move instances' disks from a compute host's own storage into Ceph.

::

    offline   domains.disk_xml.local_disks -> offline.bring (qemu_img.copy,
              compare) -> record -> old_disks.set_aside -> Guest.define
    live      live.convert: Guest.mirror each -> pause, pivot, snap -> record
              -> old_disks.set_aside -> Guest.define -> qemu_img.compare
    back      undo.undo, or undo.finish

The operator runs it on the host where the instance is. Nova is not needed.
"""
