# SPDX-License-Identifier: Apache-2.0

"""An image that is not raw is checked by Nova, and converted into the pool."""

import os
import re
import shutil
import subprocess
import types

import pytest

from nova_rbd_backend.ceph import qemu_img
from tests.nova.images import GIB, MIB, another, bases, cache, content, rbd
from tests.nova.virt.boot.conftest import DISK_BYTES
from tests.nova.virt.boot.test_bases import staged
from tests.testbed.process import start_time


def program(*command):
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize(
    ("disk_format", "options"),
    [
        ("qcow2", ()),
        ("qcow2", ("-c", "-o", "cluster_size=2M")),
        ("vmdk", ("-o", "subformat=streamOptimized")),
        ("vhdx", ()),
    ],
)
def test_converted_into_the_pool_alone(
    pools,
    uploaded,
    boot,
    instance,
    image_id,
    raw,
    disk_format,
    options,
    monkeypatch,
):
    path = raw.with_suffix(f".{disk_format}")
    program(
        *("qemu-img", "convert", "-O", disk_format, *options, raw, path),
    )
    local, copy = [], qemu_img.copy

    def copies(source, *rest):
        # The download, and the first bytes of the disk.
        local.append(sum(os.stat(name).st_blocks for name in staged()) * 512)
        copy(source, *rest)

    monkeypatch.setattr(qemu_img, "copy", copies)
    image = rbd(instance)
    uploaded(path, disk_format)
    boot(image)
    found, size, origin = content(pools, image, DISK_BYTES)
    assert found == raw.read_bytes()
    assert size == GIB
    assert [origin.image] == bases(pools, image_id)
    with pools.vms.open(origin.image) as base:
        # Zeros are left out.
        assert sum(length for _, length in base.extents()) <= 16 * MIB
    assert local[0] < path.stat().st_size + 2 * MIB
    assert staged() == []


def test_disk_of_a_temporary_image(
    pools, uploaded, boot, instance, image_id, raw
):
    """Such a disk is made without a base."""
    path = raw.with_suffix(".qcow2")
    program("qemu-img", "convert", "-O", "qcow2", raw, path)
    uploaded(path, "qcow2")
    from nova_rbd_backend.virt.boot import create_image

    create_image.IMAGE_API.known["properties"] = {"image_type": "snapshot"}
    instance.task_state, instance.vm_state = "spawning", "shelved_offloaded"
    instance.host = None
    image = rbd(instance)
    boot(image)
    found, size, origin = content(pools, image, DISK_BYTES)
    assert (found, size, origin) == (raw.read_bytes(), GIB, None)
    assert bases(pools, image_id) == []


def test_disk_too_big_for_its_flavor_is_not_converted(
    pools, uploaded, boot, instance, image_id, raw, monkeypatch
):
    from nova import exception

    path = raw.with_suffix(".qcow2")
    program("qemu-img", "convert", "-O", "qcow2", raw, path)
    monkeypatch.delattr(qemu_img, "copy")
    uploaded(path, "qcow2")
    with pytest.raises(exception.FlavorDiskSmallerThanImage):
        boot(rbd(instance), size=8 * MIB)
    assert bases(pools, image_id) == []
    assert staged() == []


def test_program_that_does_not_end_is_killed(
    pools, uploaded, boot, instance, image_id, raw, monkeypatch, tmp_path
):
    from nova import exception

    from nova_rbd_backend.virt.boot import nova_fetch

    path = raw.with_suffix(".qcow2")
    program("qemu-img", "convert", "-O", "qcow2", raw, path)
    uploaded(path, "qcow2")
    hanging = tmp_path / "bin" / "qemu-img"
    hanging.parent.mkdir()
    real, pid = shutil.which("qemu-img"), tmp_path / "pid"
    hanging.write_text(
        f'#!/bin/sh\n[ "$1" != dd ] || {{ echo $$ >{pid}; exec sleep 300; }}\n'
        f'exec {real} "$@"\n'
    )
    hanging.chmod(0o755)
    monkeypatch.setenv("PATH", f"{hanging.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(nova_fetch, "_LOOK_SECONDS", 2)
    with pytest.raises(exception.ImageUnacceptable):
        boot(rbd(instance))
    assert start_time(int(pid.read_text())) is None
    assert bases(pools, image_id) == []
    assert staged() == []


def _with_backing_file(raw, path):
    command = ("qemu-img", "create", "-f", "qcow2", "-F", "raw", "-b", raw)
    program(*command, path)


def _with_data_file(raw, path):
    data = f"data_file={raw.with_suffix('.data')},data_file_raw=on"
    program("qemu-img", "create", "-f", "qcow2", "-o", data, path, "24M")


def _raw(raw, path):
    shutil.copyfile(raw, path)


def _of_an_image(raw, path):
    """An image whose disk begins like an image in another format."""
    inner = raw.with_suffix(".inner")
    program("qemu-img", "create", "-f", "qcow2", inner, "1G")
    command = ("qemu-img", "convert", "-f", "raw", "-O", "qcow2")
    program(*command, inner, path)


def _damaged(raw, path, at=5 * 65536 + 1024):
    """Lose what is compressed in an image, but not its first cluster."""
    with raw.open("r+b") as file:
        file.seek(7 * MIB)
        file.write(bytes(range(256)) * 4096)
    program("qemu-img", "convert", "-c", "-O", "qcow2", raw, path)
    with path.open("r+b") as file:
        length = file.seek(0, os.SEEK_END) - at
        file.seek(at)
        file.write(b"\xff" * length)


def _damaged_at_its_begin(raw, path):
    _damaged(raw, path, 5 * 65536)


@pytest.fixture
def refusals(pools, uploaded, novas_fetch, image_id, raw):
    """Return a function that boots an image which must be refused.

    It returns the reasons that this backend gives, and Nova alone.
    """
    from nova import exception

    def by_nova_alone(context, target, image_id, trusted_certs=None):
        novas_fetch(context, target, image_id, trusted_certs)

    def refusal(fetch):
        with pytest.raises(exception.ImageUnacceptable) as caught:
            cache(rbd(another()), fetch, image_id=image_id)
        assert bases(pools, image_id) == []
        assert staged() == []
        text = " ".join(str(caught.value).split())
        # What qemu-img says of a damaged image follows.
        return re.sub(r"(Unable to convert image to raw: ).*", r"\1", text)

    def boot(make):
        path = raw.with_suffix(".qcow2")
        make(raw, path)
        uploaded(path, "qcow2")
        return refusal(novas_fetch), refusal(by_nova_alone)

    return boot


@pytest.mark.parametrize(
    "make", [_with_backing_file, _of_an_image, _damaged, _damaged_at_its_begin]
)
def test_refused_as_by_nova_alone(refusals, make):
    ours, novas = refusals(make)
    assert ours == novas


@pytest.mark.parametrize("make", [_with_data_file, _raw])
def test_refused_as_by_novas_inspection(inspected, refusals, make):
    ours, novas = refusals(make)
    assert ours == novas


@pytest.fixture
def copied(monkeypatch, raw, uploaded):
    """Have an image that this backend must leave to Nova to convert."""
    from nova_rbd_backend.virt.boot import nova_fetch

    path = raw.with_suffix(".qcow2")
    program("qemu-img", "convert", "-O", "qcow2", raw, path)
    uploaded(path, "qcow2")
    monkeypatch.delattr(qemu_img, "copy")
    nova_fetch._log_nova_converts.cache_clear()


@pytest.mark.parametrize(
    "function", ["fetch_to_raw", "fetch", "fetch_image", "other"]
)
def test_nova_that_does_more_converts_itself(
    pools,
    copied,
    novas_fetch,
    instance,
    image_id,
    raw,
    function,
    monkeypatch,
    caplog,
):
    from nova_rbd_backend.virt import compat

    def other(**kwargs):
        novas_fetch(**kwargs)

    if function in compat.STEPS:
        monkeypatch.setitem(compat.STEPS, function, ("context",))
    fetch = other if function == "other" else novas_fetch
    image = rbd(instance)
    cache(image, fetch, image_id=image_id)
    assert content(pools, image, DISK_BYTES)[0] == raw.read_bytes()
    (line,) = [each for each in caplog.messages if "twice their size" in each]
    assert f"{function} uses (" in line or "other is not known" in line


def test_host_without_the_programs_converts_by_nova(
    pools, copied, boot, instance, raw, monkeypatch, caplog
):
    """setpriv is missing, and QEMU's rbd driver."""
    from nova_rbd_backend.virt.boot import nova_fetch

    monkeypatch.setattr(shutil, "which", lambda _name: None)
    nova_fetch._can_convert_into_ceph.cache_clear()
    image = rbd(instance)
    boot(image)
    nova_fetch._can_convert_into_ceph.cache_clear()
    assert content(pools, image, DISK_BYTES)[0] == raw.read_bytes()
    assert any("setpriv is not installed" in line for line in caplog.messages)


def test_this_nova_does_what_is_known():
    from nova.virt import images
    from nova.virt.libvirt import driver

    from nova_rbd_backend.virt import compat

    root = driver.LibvirtDriver._create_and_inject_local_root
    (clones,) = (
        types.FunctionType(each, vars(driver), closure=(types.CellType(),) * 2)
        for each in root.__code__.co_consts
        if getattr(each, "co_name", "") == "clone_fallback_to_fetch"
    )
    fetches = driver.libvirt_utils.fetch_image
    for function in (clones, fetches, images.fetch_to_raw, images.fetch):
        assert compat.unknown_step(function) is None
