# SPDX-License-Identifier: Apache-2.0

"""An image that cannot be cloned is copied into the pool once for all disks.

The tests answer in Glance's place, and make the file that Nova fetches.
"""

import os
import types
import uuid

import pytest

from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.bases import make as bases_
from tests.nova.images import (
    GIB,
    MIB,
    another,
    base_file,
    bases,
    cache,
    content,
    fetcher,
    never,
    rbd,
)


def staged():
    """Return the files in Nova's folder, except its locks."""
    import nova.conf

    folder = nova.conf.CONF.instances_path
    return [
        os.path.join(at, name)
        for at, _, names in os.walk(folder)
        for name in names
        if os.path.basename(at) != "locks"
    ]


def certificates(*ids):
    return types.SimpleNamespace(ids=list(ids))


def test_fetched_once_and_cloned(pools, glance, instance, image_id):
    glance(disk_format="qcow2", os_hash_value="abc")
    fetched = []
    image = rbd(instance)
    cache(image, fetcher(b"fetched", fetched), image_id=image_id)
    (base,) = bases(pools, image_id)
    found, size, origin = content(pools, image, 7)
    assert (found, size) == (b"fetched", GIB)
    assert origin == bases_.snap(pools.vms, base)
    assert len(fetched) == 1
    assert staged() == []
    second = rbd(another())
    cache(second, never, image_id=image_id)
    assert content(pools, second, 7)[2] == origin
    with pools.vms.open(base) as disk:
        assert (
            disk.metadata().items()
            >= {
                "nova.image": image_id,
                "nova.image_hash": "sha512:abc",
                "nova.image_format": "qcow2",
            }.items()
        )


def test_leftover_of_novas_cache_is_not_read(
    pools, glance, instance, image_id
):
    glance(disk_format="qcow2")
    with open(base_file(), "wb") as file:
        file.write(b"leftover")
    image = rbd(instance)
    cache(image, fetcher(b"fetched!", []), image_id=image_id)
    assert content(pools, image, 8)[0] == b"fetched!"


def test_changed_image_is_another_base(pools, glance, instance, image_id):
    for data in (b"first", b"later"):
        glance(disk_format="qcow2", os_hash_value=data.decode())
        image = rbd(another())
        cache(image, fetcher(data, []), image_id=image_id)
        assert content(pools, image, 5)[0] == data
    assert len(bases(pools, image_id)) == 2


def test_base_of_a_signed_image_serves_only_its_certificates(
    pools, glance, instance, parent, image_id
):
    glance(urls=(parent,))
    fetched = []
    fetch = fetcher(b"checked", fetched)
    trusted = {"trusted_certs": certificates("b", "a"), "image_id": image_id}
    image = rbd(instance)
    cache(image, fetch, **trusted)
    assert content(pools, image, 7)[:2] == (b"checked", GIB)
    (base,) = bases(pools, image_id)
    with pools.vms.open(base) as disk:
        verified = disk.metadata()["nova.verified_with"]
    assert verified == "certificates a,b"
    trusted["trusted_certs"] = certificates("a", "b")
    cache(rbd(another()), never, **trusted)
    trusted["trusted_certs"] = certificates("a", "c")
    cache(rbd(another()), fetch, **trusted)
    assert len(fetched) == 2
    unverified = rbd(another())
    cache(unverified, never, image_id=image_id)  # Glance's image is cloned
    assert content(pools, unverified, 11)[0] == b"from glance"


def test_image_that_is_too_big_never_reaches_the_pool(
    pools, glance, instance, image_id
):
    """Else a user fills the pool with images that no flavor may boot."""
    from nova import exception

    glance(disk_format="qcow2")
    fetched = []
    fetch = fetcher(bytes(2 * MIB), fetched)
    for _ in range(2):
        with pytest.raises(exception.FlavorDiskSmallerThanImage):
            cache(rbd(instance), fetch, size=MIB, image_id=image_id)
        assert pools.vms.directory.names(instance.uuid) == []
        assert bases(pools, image_id) == []
        assert journal.creations(pools.vms, f"nova-base_{image_id}") == []
        assert staged() == []
    assert len(fetched) == 1
    # A bigger flavor may boot it.
    cache(rbd(another()), fetch, size=4 * MIB, image_id=image_id)
    assert len(fetched) == 2
    with pytest.raises(exception.FlavorDiskSmallerThanImage):
        cache(rbd(instance), never, size=MIB, image_id=image_id)


def test_refused_image_is_another_one_after_a_change(
    pools, glance, instance, image_id
):
    from nova import exception

    glance(disk_format="qcow2", os_hash_value="big")
    big = fetcher(bytes(2 * MIB), [])
    with pytest.raises(exception.FlavorDiskSmallerThanImage):
        cache(rbd(instance), big, size=MIB, image_id=image_id)
    glance(disk_format="qcow2", os_hash_value="small")
    image = rbd(instance)
    cache(image, fetcher(b"small", []), size=MIB, image_id=image_id)
    assert content(pools, image, 5)[0] == b"small"


def test_image_that_another_host_sends(pools, instance, image_id):
    """Glance no longer has it: Nova gives no image id, only its own path."""
    from nova import exception

    fetched = []
    fetch = fetcher(bytes(2 * MIB), fetched)

    def have(image, size):
        image.cache(fetch_func=fetch, filename="0" * 40, size=size)

    with pytest.raises(exception.FlavorDiskSmallerThanImage):
        have(rbd(instance), MIB)
    assert pools.vms.directory.names(instance.uuid) == []
    image = rbd(instance)
    have(image, GIB)
    assert content(pools, image, 2)[:2] == (bytes(2), GIB)
    assert set(fetched) == {base_file()}
    assert staged() == []


def test_failed_fetch_leaves_nothing(pools, glance, instance, image_id):
    glance(disk_format="qcow2")

    def breaks(target, **_):
        with open(target + ".part", "wb") as file:
            file.write(b"half")
        raise OSError("no answer from Glance")

    with pytest.raises(OSError, match="no answer"):
        cache(rbd(instance), breaks, image_id=image_id)
    assert bases(pools, image_id) == []
    assert staged() == []
    cache(rbd(instance), fetcher(b"fetched", []), image_id=image_id)


def test_image_of_a_shelved_server_makes_no_base(
    pools, glance, instance, image_id
):
    from nova.compute import vm_states

    glance(disk_format="raw", properties={"image_type": "snapshot"})
    instance.vm_state, instance.task_state = vm_states.SHELVED_OFFLOADED, None
    instance.host = None
    image = rbd(instance)
    cache(image, fetcher(b"saved", []), image_id=image_id)
    assert content(pools, image, 5) == (b"saved", GIB, None)
    assert bases(pools, image_id) == []
    assert staged() == []


def generate(image, filename, text, **kwargs):
    made = []

    def mkfs(target, **_):
        made.append(target)
        with open(target, "wb") as file:
            file.truncate(8 * MIB)
            file.write(text)

    image.cache(fetch_func=mkfs, filename=filename, size=8 * MIB, **kwargs)
    return made


def test_ephemeral_disks_of_one_size_are_clones(pools, instance):
    filename = f"ephemeral_1_{uuid.uuid4().hex[:7]}"
    kwargs = {"ephemeral_size": 1}
    first = rbd(instance, "disk.eph0")
    assert len(generate(first, filename, b"ext4", **kwargs)) == 1
    again = rbd(another(), "disk.local")
    assert generate(again, filename, b"other", **kwargs) == []
    assert content(pools, again, 4)[0] == b"ext4"
    # A second disk of the same guest needs a file system of its own, and so
    # does a disk with another kind of file system.
    second = rbd(instance, "disk.eph1")
    assert len(generate(second, filename, b"more", **kwargs)) == 1
    kwargs["specified_fs"] = "xfs"
    third = rbd(another(), "disk.eph0")
    assert len(generate(third, filename, b"xfs", **kwargs)) == 1
    assert staged() == []


def test_file_system_depends_on_the_guests_os_type(pools, instance):
    """Nova's file name is the same whatever file system mkfs makes."""
    filename = f"ephemeral_1_{uuid.uuid4().hex[:7]}"
    for os_type in (None, "linux", "windows"):
        for made in (1, 0):
            guest = another()
            guest.os_type = os_type
            image = rbd(guest, "disk.local")
            text = str(os_type).encode()
            assert (
                len(generate(image, filename, text, ephemeral_size=1)) == made
            )
            assert content(pools, image, len(text))[0] == text


@pytest.mark.parametrize("status", ["deactivated", "pending_delete"])
def test_base_of_an_inactive_image_is_not_cloned(
    pools, glance, instance, image_id, status
):
    from nova import exception

    glance(disk_format="qcow2")
    cache(rbd(another()), fetcher(b"fetched", []), image_id=image_id)
    glance(disk_format="qcow2", status=status)
    with pytest.raises(exception.ImageNotActive):
        cache(rbd(instance), never, image_id=image_id)
    assert pools.vms.directory.names(instance.uuid) == []


def test_certificates_that_the_operator_trusts_by_default(
    pools, glance, instance, parent, image_id
):
    glance(urls=(parent,))
    pools.conf(
        group="glance",
        enable_certificate_validation=True,
        default_trusted_certificate_ids=["d"],
    )
    image = rbd(instance)
    cache(image, fetcher(b"checked", []), image_id=image_id)
    (base,) = bases(pools, image_id)
    with pools.vms.open(base) as disk:
        verified = disk.metadata()["nova.verified_with"]
    assert verified == "certificates d"
    # As Nova's API writes them into the instance.
    cache(
        rbd(another()),
        never,
        image_id=image_id,
        trusted_certs=certificates("d"),
    )
