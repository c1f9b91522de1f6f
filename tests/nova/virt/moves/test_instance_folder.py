# SPDX-License-Identifier: Apache-2.0

"""The folder that an instance leaves on a host when it moves away."""

import os
import subprocess
import uuid

import pytest

from tests.nova.drivers import new_driver


@pytest.fixture
def driver(nova_conf):
    nova_conf(host="here")
    nova_conf(group="libvirt", connection_uri="test:///default")
    return new_driver()


@pytest.fixture
def instance(nova_conf, tmp_path):
    """An instance of this host, whose folder has a console log."""
    from nova import objects
    from nova.virt.libvirt import utils

    made = objects.Instance(
        id=1,
        uuid=str(uuid.uuid4()),
        host="here",
        task_state=None,
        flavor=objects.Flavor(extra_specs={}),
        resources=None,
        system_metadata={},
    )
    folder = tmp_path / "instances" / made.uuid
    folder.mkdir(parents=True)
    (folder / "console.log").write_text("what it said")
    assert utils.get_instance_path(made) == str(folder)
    return made


@pytest.fixture
def folder(tmp_path, instance):
    return tmp_path / "instances" / instance.uuid


def clean_up(driver, instance, **kwargs):
    driver.cleanup(
        None, instance, [], destroy_disks=False, destroy_vifs=False, **kwargs
    )


def test_folder_goes_after_an_evacuation(driver, instance, folder):
    instance.host = "there"
    clean_up(driver, instance)
    assert not folder.exists()
    clean_up(driver, instance)


def test_folder_goes_after_a_reverted_resize(driver, instance, folder):
    instance.task_state = "resize_reverting"
    clean_up(driver, instance)
    assert not folder.exists()


def test_folder_stays_after_a_reverted_resize_on_one_host(
    driver, instance, folder
):
    instance.task_state = "resize_reverting"
    folder.with_name(f"{folder.name}_resize").mkdir()
    clean_up(driver, instance)
    assert folder.exists()


@pytest.mark.parametrize("is_shared", [True, False])
def test_folder_after_a_live_migration_that_failed(
    driver, instance, folder, is_shared
):
    """The guest runs on its own host, which may see this same folder.

    It may be exported by a server other than the kernel's, or its table may be
    hidden from a nova-compute in a container.
    """
    from nova.objects import migrate_data

    instance.host = "there"
    instance.numa_topology = None
    driver.rollback_live_migration_at_destination(
        None,
        instance,
        [],
        {},
        destroy_disks=False,
        migrate_data=migrate_data.LibvirtLiveMigrateData(
            is_shared_instance_path=is_shared,
            is_shared_block_storage=True,
            instance_relative_path=instance.uuid,
        ),
    )
    assert folder.exists() == is_shared


@pytest.mark.parametrize("task_state", ["rebooting_hard", "powering-on", None])
def test_folder_stays_while_the_instance_is_here(
    driver, instance, folder, task_state
):
    instance.task_state = task_state
    clean_up(driver, instance)
    assert (folder / "console.log").read_text() == "what it said"


def test_folder_stays_on_a_file_system_that_may_be_shared(
    driver, instance, folder, monkeypatch
):
    from nova_rbd_backend.virt.moves import instance_folder

    monkeypatch.setattr(instance_folder, "filesystem_type", lambda _: "nfs4")
    instance.host = "there"
    clean_up(driver, instance)
    assert folder.exists()


@pytest.mark.parametrize(
    "line",
    [
        "{instances} 10.0.0.0/8(rw)",
        '"{instances}"\t10.0.0.0/8(rw,sync)',
        "/ *(ro)",
        "{folder} *(rw)",
        "{spaced} *(rw)",
    ],
)
def test_folder_stays_if_this_host_exports_it(
    driver, instance, folder, tmp_path, monkeypatch, line
):
    from nova_rbd_backend.virt.moves import instance_folder

    spaced = tmp_path / "a b"
    spaced.symlink_to(folder.parent)
    table = tmp_path / "exports"
    text = line.format(
        instances=folder.parent,
        folder=folder,
        spaced=str(spaced).replace(" ", r"\040"),
    )
    table.write_text(f"# {folder.parent} is\n\n/srv *(ro)\n{text}\n")
    monkeypatch.setattr(instance_folder, "EXPORTS", ("/none", str(table)))
    instance.host = "there"
    clean_up(driver, instance)
    assert folder.exists()


def test_folder_goes_if_another_folder_is_exported(
    driver, instance, folder, tmp_path, monkeypatch
):
    from nova_rbd_backend.virt.moves import instance_folder

    table = tmp_path / "exports"
    table.write_text(f"{folder.parent}-2 *(rw)\n# {folder} *(rw)\n")
    monkeypatch.setattr(instance_folder, "EXPORTS", (str(table),))
    instance.host = "there"
    clean_up(driver, instance)
    assert not folder.exists()


@pytest.fixture
def irremovable(folder):
    """Something in the folder that not even root can remove."""
    (folder / "mounted").mkdir()
    mount = ("mount", "-t", "tmpfs", "tmpfs", str(folder / "mounted"))
    subprocess.run(mount, check=True, timeout=10)
    yield
    subprocess.run(("umount", str(folder / "mounted")), check=True, timeout=10)


def test_folder_that_cannot_be_removed_is_only_logged(
    driver, instance, folder, irremovable, caplog
):
    instance.host = "there"
    clean_up(driver, instance)
    assert folder.exists()
    (said,) = [r for r in caplog.records if str(folder) in r.getMessage()]
    assert said.levelname == "WARNING"
    assert "busy" in said.getMessage()


def test_filesystem_types(tmp_path):
    from nova_rbd_backend.virt.moves.instance_folder import (
        LOCAL_FILESYSTEMS,
        filesystem_type,
    )

    assert filesystem_type("/proc/self") == "proc"
    assert filesystem_type("/") == filesystem_type("/../")
    assert filesystem_type("/dev/shm") == "tmpfs"
    assert filesystem_type(str(tmp_path)) in LOCAL_FILESYSTEMS


@pytest.fixture(
    params=["inst\u00e4nces".encode(), b"caf\xe9", b"a b\\040 - c"]
)
def mounted(request, tmp_path):
    """A mount point with a file system of its own."""
    point = os.fsencode(tmp_path) + b"/" + request.param
    os.mkdir(point)
    mount = ("mount", "-t", "ramfs", "ramfs", point)
    subprocess.run(mount, check=True, timeout=10)
    yield os.fsdecode(point)
    subprocess.run(("umount", point), check=True, timeout=10)


def test_filesystem_type_of_a_mount_with_an_odd_name(mounted, tmp_path):
    from nova_rbd_backend.virt.moves.instance_folder import filesystem_type

    assert filesystem_type(mounted) == "ramfs"
    assert filesystem_type(str(tmp_path)) == filesystem_type("/tmp")


@pytest.mark.parametrize("hides", ["itself", "its folder"])
def test_filesystem_type_below_a_hidden_mount(tmp_path, hides):
    """The tmpfs is not where its path leads any more."""
    from nova_rbd_backend.virt.moves.instance_folder import filesystem_type

    folder = tmp_path / "state"
    point = folder / "instances"
    point.mkdir(parents=True)
    over = point if hides == "itself" else folder

    def mount(kind, at):
        command = ("mount", "-t", kind, kind, str(at))
        subprocess.run(command, check=True, timeout=10)

    mount("tmpfs", point)
    try:
        assert filesystem_type(str(point)) == "tmpfs"
        mount("ramfs", over)
        point.mkdir(exist_ok=True)
        (point / "uuid").mkdir()
        try:
            assert filesystem_type(f"{point}/uuid") == "ramfs"
        finally:
            subprocess.run(("umount", over), check=True, timeout=10)
    finally:
        subprocess.run(("umount", point), check=True, timeout=10)


def test_folder_stays_if_its_export_is_not_ascii(
    driver, instance, folder, tmp_path, monkeypatch
):
    from nova_rbd_backend.virt.moves import instance_folder

    link = os.fsencode(tmp_path) + "/\u00e4 ".encode() + b"\xe9"
    os.symlink(folder.parent, link)
    table = tmp_path / "exports"
    table.write_bytes(
        link.replace(b" ", rb"\040").replace(b"\xc3", rb"\303") + b" *(rw)\n"
    )
    monkeypatch.setattr(instance_folder, "EXPORTS", (str(table),))
    instance.host = "there"
    clean_up(driver, instance)
    assert folder.exists()
