# SPDX-License-Identifier: Apache-2.0

"""Keep the disks of Nova's instances on Ceph RBD.

The paths through the code::

    boot      virt.driver -> virt.imagebackend.Rbd -> virt.boot.create_image
              -> storage.disks.provision, or storage.bases.make before it
              -> ceph.pool -> virt.disk_xml
    start     virt.driver._create_guest -> storage.fencing, which refuses to
              start beside a living guest, and fences a dead one
    snapshot  virt.driver.snapshot -> virt.snapshot.quiesce
              -> virt.snapshot.to_glance -> storage.snapshots.make -> Glance
              -> (background) storage.snapshots.detach
    delete    virt.driver._cleanup_rbd -> storage.disks.delete
              -> (background) storage.images.purge
    which pool virt.pools.choice -> storage.store -> storage.registry

The folders: ``ceph`` and ``domains`` are the only doors to Ceph and to libvirt
outside Nova; ``storage`` has the flows over them, behind ``storage.store``;
``checks`` tells whether nova-compute can start; ``conf`` has the options;
``virt`` is the Nova edge, whose ``virt.edge`` is the one way to run a flow;
``convert`` brings local disks into Ceph; ``cmd`` is the operator's tool;
``api`` is what nova-api loads. The modules beside this one are values and
helpers, without I/O. Imports go downwards only: cmd, virt, api -> convert,
checks -> storage -> ceph, domains, conf -> values.

One word, one idea:

disk
    an instance's image
base
    an image that disks are cloned from, made once of an image that could not
    be cloned itself
snapshot
    what the user asked Nova for; an image of its own
image
    any of these, in RBD
draft
    an image that is not whole yet, under a name of its own
whole
    made to its end: what every image is that has its own name
publish
    give a draft its own name
snap
    RBD's, of one image
pool
    Ceph's, with or without a namespace; a Place is the pool of one disk
store
    all pools that may hold disks of this host
class
    a storage class: a pool, and how disks are made in it
entry
    a record in a pool's journal: of a creation, deletion, detachment or spawn
spawn
    what Nova does to create a server: it makes the disks and starts the guest
move
    a resize or migration of an instance to another host
claim
    the right to work on an entry, which ends with its process
lease
    a right that a pool keeps, which ends soon after its holder dies
settle
    finish or undo what an interrupted attempt has left
undo
    take back the steps of an attempt that failed
delete
    free the names of an instance's disks
discard
    move one image to the trash, which frees its name
purge
    free the space of trashed images
restore
    give a trashed image its name again
remove
    take away at once, as librbd's remove does
detach
    give a snapshot data of its own, so that it shares nothing with its disk
fence
    keep a dead client from writing, and break its lock
holder
    a client that has an image's lock, or has it open for writing
notice
    a fact noted by a flow, for the log
seam
    a method, name or option of Nova that this backend relies on
slot
    the right to do one piece of long or waiting work; a host has a few
"""
