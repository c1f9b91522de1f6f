# SPDX-License-Identifier: Apache-2.0

"""Glance's images and an instance's disks, made as by Nova's driver."""

import os
import types
import uuid

MIB = 1 << 20
GIB = 1 << 30
# The block_device_info of a server that boots from a volume.
VOLUME = {
    "root_device_name": "/dev/vda",
    "block_device_mapping": [{"boot_index": 0, "mount_device": "/dev/vda"}],
}


class Glance:
    def __init__(self, disk_format="raw", urls=(), gone=False, **known):
        self.disk_format, self.urls, self.gone = disk_format, urls, gone
        self.known = known

    def get(self, context, image_id, include_locations=False, **_):
        from nova import exception

        if self.gone:
            raise exception.ImageNotFound(image_id=image_id)
        return {
            "id": image_id,
            "disk_format": self.disk_format,
            "locations": [{"url": url, "metadata": {}} for url in self.urls],
            "os_hash_algo": "sha512",
            **self.known,
        }


def rbd(instance, name="disk"):
    from nova_rbd_backend.virt import imagebackend

    return imagebackend.Rbd(instance, name)


def fetcher(content, fetched):
    """Return a callback like Nova's, which fetches, checks and converts."""

    def fetch(target, **_):
        fetched.append(target)
        with open(target, "wb") as file:
            file.write(content)

    return fetch


def never(target, **_):
    raise AssertionError("fetched although it can be cloned")


def cache(image, fetch, size=GIB, **kwargs):
    kwargs = {"image_id": str(uuid.uuid4()), "context": None, **kwargs}
    image.cache(fetch_func=fetch, filename="0" * 40, size=size, **kwargs)


def generated(image, size, **kwargs):
    """Make an ephemeral or swap disk as Nova does, without its mkfs."""
    made = []

    def mkfs(target, **_):
        made.append(target)
        with open(target, "wb") as file:
            file.truncate(size)
            file.write(f"header for {size}".encode())

    # Nova has a file name per size; a new name here means no file yet.
    name = f"generated_{uuid.uuid4()}"
    image.cache(fetch_func=mkfs, filename=name, size=size, **kwargs)
    return made


def content(pools, image, length):
    with pools.vms.open(image.disk.image) as disk:
        return disk.read(0, length), disk.size_bytes(), disk.parent()


def bases(pools, image_id):
    return pools.vms.directory.names(f"nova-base_{image_id}")


def base_file():
    """Return where Nova keeps the fetched image on this host."""
    import nova.conf

    folder = os.path.join(nova.conf.CONF.instances_path, "_base")
    os.makedirs(folder, exist_ok=True)
    return os.path.join(folder, "0" * 40)


def another():
    """Return another instance."""
    return types.SimpleNamespace(uuid=str(uuid.uuid4()), project_id="q" * 32)
