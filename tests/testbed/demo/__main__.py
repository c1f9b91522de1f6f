# SPDX-License-Identifier: Apache-2.0

"""Demonstrate the backend: start all it needs, boot guests, prove, clean up.

Usage: python -m tests.testbed.demo [--keep] [--backend plugin|in-tree]
"""

import argparse
import functools
import json
import re
import signal
import sys

from openstack.compute.v2.server import Server
from openstack.image.v2.image import Image

from tests.testbed import nova_threads, versions
from tests.testbed.ceph import rbd_view
from tests.testbed.demo.life import Life, prove
from tests.testbed.guest import building as guest
from tests.testbed.openstack import compute_conf
from tests.testbed.process import wait_for
from tests.testbed.steps import Steps
from tests.testbed.whole import Testbed

GIB = 1 << 30
# A deleted disk leaves the pool at once; its space is freed afterwards.
PURGE_SECONDS = 60


class Demo:
    """One run; ``steps`` keeps what was done for the table at the end."""

    def __init__(self, name: str, backend: str):
        self.steps = Steps()
        self.testbed = Testbed(name, hosts=2, backend=backend)
        self.images: dict[str, Image] = {}
        self.booted: dict[str, Server] = {}

    def run(self) -> None:
        """All steps up to the deletes.

        :raises TestbedError: a step, or what it was to prove, failed
        """
        self._bring_up()
        self._upload()
        self._boot()
        self._show_consoles()
        self._show_rbd_images()
        self._show_xml()
        self._show_capacity()
        self._live()
        self._delete()

    def _bring_up(self) -> None:
        with self.steps.step(
            "remove what an earlier run left", "nothing is reused"
        ):
            self.testbed.down()
        with self.steps.step(
            "build the guest image", "from Debian's packages"
        ):
            self.guest = guest.build()
        with self.steps.step(
            "bring Ceph, libvirt and OpenStack up",
            "an unmodified nova-compute accepts its configuration",
        ):
            print(f"    Nova {versions.NOVA} on {nova_threads.kind()} threads")
            self.testbed.up(self.steps)

    def _upload(self) -> None:
        with self.steps.step(
            "upload the guest image twice", "two Glance stores"
        ):
            servers = self.testbed.servers()
            for kind, store in (("raw", "rbd"), ("qcow2", "file")):
                path = getattr(self.guest, kind)
                name = f"guest-{kind}"
                self.images[kind] = servers.upload(name, path, kind, store)
                print(
                    f"    {name}: {self.images[kind].size >> 20} MiB in "
                    f"Glance's {store} store"
                )

    def _boot(self) -> None:
        servers = self.testbed.servers()
        flavor = servers.flavor("demo", disk_gib=1)
        proofs = {
            "raw": "the root disk is a clone, nothing was copied",
            "qcow2": "an image that is not in this Ceph is imported",
        }
        for kind, image in self.images.items():
            with self.steps.step(
                f"boot a server of the {kind} image", proofs[kind]
            ):
                server = servers.boot(
                    f"demo-{kind}",
                    image,
                    flavor,
                    availability_zone=f"nova:{self.testbed.hosts[0].name}",
                )
                self.booted[kind] = server
                print(
                    f"    {server.name} {server.id} is {server.status} on "
                    f"{server.compute_host}"
                )

    def _show_consoles(self) -> None:
        with self.steps.step(
            "read the guests' consoles", "both guests run from disks of 1 GiB"
        ):
            for server in self.booted.values():
                console = self.testbed.wait_for_guest(server)
                print(f"    {server.name}: {json.dumps(console.markers[-1])}")
                root = console.markers[-1]["root"]
                prove(
                    console.disks[root]["bytes"] == GIB,
                    f"{server.name} sees a root disk of 1 GiB",
                )

    def _show_rbd_images(self) -> None:
        with self.steps.step(
            "list the RBD images", "each server has a disk that names it"
        ):
            images = rbd_view.images(self.testbed.cluster, "vms")
            for image in images.values():
                print("\n".join(f"    {line}" for line in image.lines()))
            for server in self.booted.values():
                disk = images.get(f"{server.id}_disk")
                prove(disk, f"{server.name} has its disk in the pool")
                if self.testbed.backend == "plugin":
                    prove(
                        server.id in disk.metadata.values(),
                        f"{disk.name} carries its instance's id",
                    )
            raw = images[f"{self.booted['raw'].id}_disk"]
            prove(
                raw.parent and self.images["raw"].id in raw.parent,
                f"{raw.name} is a clone of the Glance image",
            )

    def _show_xml(self) -> None:
        with self.steps.step("show the disk's libvirt XML", "it holds no key"):
            key = self.testbed.cluster.key("nova")
            host = self.testbed.hosts[0]
            for server in self.booted.values():
                xml = host.run(
                    ["virsh", "dumpxml", "--security-info", server.id],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
                disk = re.search(r"<disk type='network'.*?</disk>", xml, re.S)
                prove(disk, f"{server.name} has a network disk")
                print("\n".join(f"    {x}" for x in disk[0].splitlines()))
                prove(key not in xml, f"no key in {server.name}'s XML")

    def _show_capacity(self) -> None:
        with self.steps.step(
            "ask Placement for the free space",
            "the scheduler knows Ceph's usable capacity",
        ):
            total, used = self._disk_gb()
            print(
                f"    DISK_GB: {total} in all, {used} claimed by servers, "
                f"{total - used} free"
            )
            prove(
                total > 0 and used == len(self.booted),
                "Placement counts 1 GiB for each server",
            )

    def _disk_gb(self) -> tuple[int, int]:
        placement = self.testbed.openstack.connection().placement
        name = self.testbed.hosts[0].name
        provider = next(placement.resource_providers(name=name))
        url = f"/resource_providers/{provider.id}"
        inventory = placement.get(f"{url}/inventories").json()["inventories"]
        usages = placement.get(f"{url}/usages").json()["usages"]
        return inventory["DISK_GB"]["total"], usages["DISK_GB"]

    def _live(self) -> None:
        life = self.life = Life(self.testbed, self.booted["raw"])
        for name, proves, work in (
            (
                "make a snapshot of a server",
                "the guest runs on; the image is a clone",
                life.snapshot,
            ),
            (
                "boot a server from the snapshot",
                "it has all that the guest had flushed",
                life.boot_from_snapshot,
            ),
            (
                "migrate the server to the other host",
                "the guest runs on, with nothing shared but Ceph",
                life.live_migrate,
            ),
            (
                "cut the other host's power, evacuate the server",
                "it starts on the first host, with all it had flushed",
                life.evacuate,
            ),
            (
                "bring the dead host back",
                "it cannot write to a disk that is used elsewhere",
                life.restore,
            ),
        ):
            with self.steps.step(name, proves):
                work()

    def _delete(self) -> None:
        cluster = self.testbed.cluster
        pools = ("vms", "snapshots")
        with self.steps.step(
            "delete the servers and the snapshot", "nothing stays in the pools"
        ):
            self.life.end()
            for server in self.booted.values():
                self.testbed.servers().delete(server)
            for pool in pools:
                wait_for(
                    f"the pool {pool} is empty",
                    functools.partial(self._is_empty, pool),
                    PURGE_SECONDS,
                )
                print(f"    images in {pool}: {rbd_view.left(cluster, pool)}")

    def _is_empty(self, pool: str) -> bool:
        return not rbd_view.left(self.testbed.cluster, pool)


def main(arguments: list[str]) -> int:
    """Run the demonstration; return 0 if everything was proved."""
    wanted = _parser().parse_args(arguments)
    # SIGTERM cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    demo = Demo(wanted.name, wanted.backend)
    failure = ""
    try:
        demo.run()
    except KeyboardInterrupt:
        failure = "interrupted"
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
    finally:
        if not wanted.keep:
            with demo.steps.step("end everything", "nothing stays behind"):
                demo.testbed.down()
    print("\n" + demo.steps.table())
    if wanted.keep:
        print(_how_to_use(wanted.name))
    print(f"\nFAILED: {failure}" if failure else "\nEverything was proved.")
    return 1 if failure else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/demo.sh",
        epilog="NOVA_VERSION=30.3.0 in the environment chooses a release of "
        "Nova, NOVA_THREADS=eventlet or native what its services run on.",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="leave everything up and say how to use it",
    )
    parser.add_argument("--name", default="demo", help="the testbed's name")
    parser.add_argument(
        "--backend",
        default="plugin",
        choices=compute_conf.BACKENDS,
        help="image backend (%(default)s); in-tree is Nova's, to compare with",
    )
    return parser


def _how_to_use(name: str) -> str:
    command = f"python3 -m tests.testbed --name {name}"
    return "\n".join(
        (
            "\nThe testbed is still up:",
            f"  {command} run openstack server list",
            f"  {command} run rbd ls --long vms",
            f"  {command} status",
            f"  {command} down",
        )
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
