# SPDX-License-Identifier: Apache-2.0

"""The next run finds an image that a killed run was about to delete."""

import uuid

import pytest

from nova_rbd_backend import names
from nova_rbd_backend.convert.rbd_disk import Mirror
from nova_rbd_backend.storage.images import purge
from tests.support.storage_child import META, kill_at_each_step

MIB = 1 << 20


@pytest.mark.timeout(300)
@pytest.mark.parametrize("shown", [True, False], ids=["shown", "hidden"])
def test_deletion_is_finished_by_the_next_run(ceph, vms, forks, shown):
    def prepare():
        name = str(names.DiskName(str(uuid.uuid4()), "disk"))
        mirror = Mirror(vms, name)
        mirror.create(MIB, META)
        mirror.show()
        if not shown:
            mirror.hide()
        drafts[name] = mirror.draft
        return name, mirror.draft

    drafts = {}
    runs = kill_at_each_step(forks, ceph, "discard mirror", prepare, 6)
    for _, name in runs:
        Mirror(vms, name, drafts[name]).discard(keep_written=False)
        assert vms.directory.names(name) == []
        assert not vms.directory.exists(name)
        assert not vms.directory.exists(drafts[name])
    purge.purge(vms)
