# SPDX-License-Identifier: Apache-2.0

import pytest

from nova_rbd_backend import errors, names

UUID = "8d2b5d2e-1a57-4f6f-9a55-2f2f6a7f6f01"


@pytest.mark.parametrize("disk", ["disk", "disk.eph0", "disk.config"])
def test_disk_name_is_read_as_it_is_written(disk):
    name = names.DiskName(UUID, disk)
    assert str(name) == f"{UUID}_{disk}"
    assert names.DiskName.parse(str(name)) == name
    assert str(name).startswith(names.DiskName.prefix(UUID))


@pytest.mark.parametrize(
    "image", ["", "base", UUID, f"{UUID}_", f"x{UUID}_disk", "volume-1_disk"]
)
def test_names_that_are_not_disks(image):
    assert names.DiskName.parse(image) is None


def test_paths_are_written_as_rbd_does():
    assert str(names.SnapPath("p", "", "i", "s")) == "p/i@s"
    assert str(names.SnapPath("p", "n", "i", "s")) == "p/n/i@s"
    assert str(names.ImagePath("p", "n", "i")) == "p/n/i"


def test_location_is_read_as_it_is_written():
    location = names.GlanceLocation("f-1", "a pool", "im/age", "snäp")
    assert location.url == "rbd://f-1/a%20pool/im%2Fage/sn%C3%A4p"
    assert names.GlanceLocation.parse(location.url) == location
    assert str(location.snap_path) == "a pool/im/age@snäp"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "rbd://",
        "rbd://f/p/i",
        "rbd://f/p/i/s/x",
        "rbd://f//i/s",
        "rbd:/f/p/i/s",
        "RBD//f/p/i/s",
        "file:///a/b/c",
        "http://f/p/i/s",
    ],
)
def test_what_is_no_location(url):
    with pytest.raises(errors.InvalidLocation):
        names.GlanceLocation.parse(url)


def test_a_refused_location_is_not_quoted():
    url = "swift://user:PASSWORD@host/v1/c/o"
    with pytest.raises(errors.InvalidLocation) as caught:
        names.GlanceLocation.parse(url)
    assert "PASSWORD" not in str(caught.value)


@pytest.mark.parametrize(
    "path",
    ["rbd:vms/a_disk", "vms/a_disk", "rbd:vms/a_disk:id=nova:conf=/x/y"],
)
def test_image_in_qemus_notation(path):
    found = names.ImagePath.of_qemu(path)
    assert found == names.ImagePath("vms", "", "a_disk")
    assert found.for_qemu(None, None) == "rbd:vms/a_disk"
    assert names.ImagePath.of_qemu(found.for_qemu("nova", "/x/y")) == found


@pytest.mark.parametrize("path", ["", "rbd:", "rbd:vms", "vms/", "/a_disk"])
def test_paths_that_are_not_qemus(path):
    assert names.ImagePath.of_qemu(path) is None


def test_draft_leads_to_its_final_name():
    draft = names.new_draft("a_disk.rescue")
    assert draft.startswith("a_disk.rescue.")
    assert draft != names.new_draft("a_disk.rescue")
    assert names.final_name(draft) == "a_disk.rescue"
    assert names.is_draft(draft)
    assert not names.is_draft("a_disk.rescue")


def test_undone_draft_is_a_draft_too():
    draft = names.new_draft("a_disk")
    undone = names.undone_draft(draft)
    assert undone != draft
    assert undone == names.undone_draft(undone)
    assert names.made_draft(undone) == names.made_draft(draft) == draft
    assert names.final_name(undone) == "a_disk"
    assert names.final_name("a_disk.rescue") == "a_disk.rescue"
