# SPDX-License-Identifier: Apache-2.0

"""One nova-compute's storage: Nova's LibvirtDriver with one image backend."""

import concurrent.futures
import configparser
import json
import os
import pathlib
import shutil
import socket
import time
import uuid
from typing import Any

from benchmarks import counters, glance_stand_in

GIB = 1 << 30
# [DEFAULT]max_concurrent_builds of Nova 26 to 34.
BUILDS = 10

PLUGIN = """
[DEFAULT]
compute_driver = rbd_backend.LibvirtDriver
libvirt_images_type = rbd
libvirt_images_store = vms
libvirt_images_snapshot_store = snapshots
rbd_user = {user}
rbd_secret_uuid = {secret}
[libvirt]
images_rbd_ceph_conf = {conf}
"""
IN_TREE = """
[DEFAULT]
compute_driver = libvirt.LibvirtDriver
[libvirt]
images_type = rbd
images_rbd_pool = vms
images_rbd_ceph_conf = {conf}
rbd_user = {user}
rbd_secret_uuid = {secret}
"""
BOTH = """
[DEFAULT]
host = {host}
state_path = {folder}
instances_path = {folder}/instances
[libvirt]
virt_type = qemu
[oslo_concurrency]
lock_path = {folder}/locks
"""
MAPPING = {"disk": {"bus": "virtio", "type": "disk", "dev": "vda"}}


class NovaSide:
    """What Nova asks of an image backend, each call measured.

    :param side: "plugin" or "in-tree"
    """

    def __init__(
        self, side: str, folder: str, conf: str, user: str, green: bool
    ) -> None:
        from nova import monkey_patch

        monkey_patch.patch("eventlet" if green else "threading")
        text = (PLUGIN if side == "plugin" else IN_TREE) + BOTH
        self._folder = pathlib.Path(folder)
        self._folder.joinpath("nova.conf").write_text(
            text.format(
                user=user,
                secret=uuid.uuid4(),
                conf=self._with_sockets(conf),
                folder=folder,
                host=self._folder.name,
            )
        )
        counters.install()
        self._configure()
        self._driver = self._make_driver(side)
        self._glance = glance_stand_in.install()
        self._images: dict[str, str] = {}

    def _with_sockets(self, conf: str) -> pathlib.Path:
        """Write a ceph.conf that gives clients a socket for questions."""
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(conf)
        sockets = self._folder / "$pid.$cctid.asok"
        parser["client"]["admin_socket"] = str(sockets)
        own = self._folder / "ceph.conf"
        with own.open("w") as file:
            parser.write(file)
        return own

    def _configure(self) -> None:
        from nova import config, objects

        conf = str(self._folder / "nova.conf")
        config.parse_args(
            ["benchmark", "--config-file", conf],
            configure_db=False,
            init_rpc=False,
        )
        objects.register_all()

    def _make_driver(self, side: str) -> Any:
        if side == "plugin":
            # The name that Nova loads, wherever the class is defined.
            from nova_rbd_backend.virt import LibvirtDriver as driver_class
        else:
            from nova.virt.libvirt.driver import LibvirtDriver as driver_class
        from nova.virt import fake
        from nova.virt.libvirt import driver

        made = driver_class(fake.FakeVirtAPI())
        # No libvirt runs here that could start a guest. Nova's method is
        # replaced after the driver is made, which checks its signature.
        driver.LibvirtDriver._create_guest = lambda *args, **kwargs: None
        return made

    # -- requests

    def know(self, **image: Any) -> None:
        """Add an image to Glance."""
        self._glance.add(**image)

    def forget(self) -> None:
        """Lose the local caches, as a host that has just been set up."""
        shutil.rmtree(self._folder / "instances", ignore_errors=True)

    def boot(
        self, instance: str, image: str, gib: int = 1, resize: bool = False
    ) -> dict[str, float]:
        """Make the root disk and describe it to libvirt.

        :param resize: as the second part of a resize, with the new flavor
        """
        self._images[instance] = image
        what = self._instance(instance, gib)
        if resize:
            what.task_state = "resize_finish"
        with counters.measured() as sample:
            self._make_disk(what, image)
            self._start(what)
        return sample

    def boot_many(
        self, instances: list[str], image: str, at: float
    ) -> dict[str, float]:
        """Boot as many at a time as nova-compute does; return the end's time.

        :param at: when all hosts begin
        """
        with concurrent.futures.ThreadPoolExecutor(BUILDS) as threads:
            time.sleep(max(0.0, at - time.monotonic()))
            done = [threads.submit(self.boot, i, image) for i in instances]
            for each in done:
                each.result()
        return {"end": time.monotonic()}

    def delete(self, instance: str) -> dict[str, float]:
        what = self._instance(instance, 1)
        what.task_state = "deleting"
        with counters.measured() as sample:
            self._driver._cleanup_rbd(what)
        return sample

    def confirm(self, instance: str) -> dict[str, float]:
        """Confirm a resize: drop the snap that is its way back."""
        what = self._instance(instance, 1)
        with counters.measured() as sample:
            # As _cleanup_resize() does.
            image = self._driver.image_backend.by_name(what, "disk")
            if image.exists():
                image.remove_snap("nova-resize")
        return sample

    def snapshot(self, instance: str, snapshot: str) -> dict[str, Any]:
        """Make a snapshot of a running guest, without Glance's own work.

        :returns: "sample", and in "url" where the snapshot is
        """
        from nova import context

        what = self._instance(instance, 1)
        path = f"rbd:vms/{instance}_disk"
        disk = self._driver.image_backend.by_libvirt_path(what, path)
        self._glance.located_bytes = disk.get_disk_size(disk.path)
        with counters.measured() as sample:
            # As snapshot() does for the disk that the guest's XML names.
            image = self._driver.image_backend.by_libvirt_path(what, path)
            url = image.direct_snapshot(
                context.get_admin_context(),
                uuid.uuid4().hex,
                "raw",
                snapshot,
                self._images[instance],
            )
        if not url:  # The backend has given it to Glance.
            url = self._glance.url(snapshot)
        return {"sample": sample, "url": url}

    def import_file(self, path: str, instance: str) -> dict[str, float]:
        """Put a raw file into the pool, as the disk of an instance."""
        what = self._instance(instance, 1)
        image = self._driver.image_backend.by_name(what, "disk")
        with counters.measured() as sample:
            image.import_file(what, path, "disk")
        return sample

    def left_locally(self) -> dict[str, float]:
        """Bytes of local disk that this host's state takes."""
        return {"bytes": allocated(self._folder / "instances")}

    @staticmethod
    def periodic_work() -> tuple[Any, ...]:
        """Return what nova-compute does for Ceph in each period."""
        from nova_rbd_backend.virt.background import leftovers, purger
        from nova_rbd_backend.virt.boot import ager
        from nova_rbd_backend.virt.snapshot import detacher

        return (
            ager.AGER,
            purger.PURGER,
            detacher.DETACHER,
            leftovers.SETTLER,
        )

    def periodic(self) -> dict[str, float]:
        """Do once what nova-compute does for Ceph in each period."""
        sent, cpu = self.requests(), time.process_time()
        for work in self.periodic_work():
            work._do()
        status = pathlib.Path("/proc/self/status").read_text()
        found = dict(line.split(":", 1) for line in status.splitlines())
        return {
            "requests": self.requests() - sent,
            "cpu_ms": (time.process_time() - cpu) * 1000,
            "rss_mib": int(found["VmRSS"].split()[0]) / 1024,
            "threads": int(found["Threads"]),
        }

    def requests(self) -> int:
        """Count the requests sent to OSDs so far.

        OSDs do not count those that they refuse.
        """
        return sum(map(_requests_of_client, self._folder.glob("*.asok")))

    # -- its parts

    def _make_disk(self, instance: Any, image: str) -> None:
        from nova import context

        self._driver._create_and_inject_local_root(
            context.get_admin_context(),
            instance,
            MAPPING,
            False,
            "",
            {"image_id": image},
            None,
            None,
        )

    def _start(self, instance: Any) -> None:
        """Do what the driver does before Nova has libvirt start a guest.

        The domain has the root disk only.
        """
        from nova import context

        disk = self._driver._get_guest_disk_config(
            instance, "disk", MAPPING, instance.flavor
        )
        xml = f"<domain><devices>{disk.to_xml()}</devices></domain>"
        self._driver._create_guest(context.get_admin_context(), xml, instance)

    def _instance(self, instance: str, gib: int) -> Any:
        from nova import objects

        return objects.Instance(
            uuid=instance,
            project_id=uuid.uuid4().hex,
            flavor=objects.Flavor(
                root_gb=gib, ephemeral_gb=0, swap=0, extra_specs={}
            ),
            task_state="spawning",
            vm_state="building",
            trusted_certs=None,
            migration_context=None,
            config_drive="True",
            system_metadata={},
            image_ref=self._images.get(instance, ""),
        )


def _requests_of_client(path: pathlib.Path) -> int:
    with socket.socket(socket.AF_UNIX) as asked:
        asked.settimeout(10)
        try:
            asked.connect(str(path))
        except ConnectionRefusedError:
            return 0  # the client is gone
        asked.sendall(b'{"prefix": "perf dump", "format": "json"}\0')
        answer = b"".join(iter(lambda: asked.recv(65536), b""))
    # The answer's length comes first.
    return json.loads(answer[4:])["objecter"]["op_send"]


def allocated(folder: pathlib.Path) -> int:
    """Bytes that the files below a folder take on the disk."""
    total = 0
    for parent, _folders, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total
