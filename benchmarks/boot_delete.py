# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""One root disk cloned, described as XML and deleted: ours, in-tree, floor.

    python -m benchmarks.boot_delete [--rounds 15] [--json FILE]

Both sides are driven through the same methods of Nova's LibvirtDriver on the
same throwaway Ceph, in turn, in one process with native threads.  What Glance
would answer is handed in, as the same to both, so that the figures are the
storage work alone.  The floor is the bare librbd calls on a connection that is
open already: clone, open, resize; and trash move for the delete.
"""

import argparse
import json
import pathlib
import statistics
import tempfile
import uuid

from benchmarks import counters
from tests.testbed import ceph

MIB = 1 << 20
IMAGE_BYTES = 64 * MIB
DISK_GB = 1


def settle_configuration(cluster: ceph.CephCluster, state: str) -> None:
    """What nova.conf says, for both sides."""
    from nova import config

    pathlib.Path(state, "nova.conf").write_text(f"""
[DEFAULT]
compute_driver = rbd_backend.LibvirtDriver
state_path = {state}
instances_path = {state}/instances
libvirt_images_type = rbd
libvirt_images_store = vms
rbd_user = nova
rbd_secret_uuid = {uuid.uuid4()}
[libvirt]
virt_type = qemu
images_rbd_ceph_conf = {cluster.conf}
[oslo_concurrency]
lock_path = {state}/locks
""")
    config.parse_args(
        ["benchmark", "--config-file", f"{state}/nova.conf"],
        configure_db=False,
        init_rpc=False,
    )


class GlanceReply:
    """Stands in for nova.image.glance.API: one raw image in our cluster."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, context, image_id, include_locations=False, **_kwargs):
        return {
            "id": image_id,
            "disk_format": "raw",
            "locations": [{"url": self._url, "metadata": {}}],
        }


def make_parent(cluster: ceph.CephCluster) -> str:
    """An image as Glance's rbd store keeps it; its location."""
    import rbd

    name = str(uuid.uuid4())
    with cluster.admin() as admin, admin.open_ioctx("images") as ioctx:
        rbd.RBD().create(ioctx, name, IMAGE_BYTES, order=23, old_format=False)
        with rbd.Image(ioctx, name) as image:
            image.write(b"\xff" * 8 * MIB, 0)
            image.create_snap("snap")
            image.protect_snap("snap")
        return f"rbd://{cluster.fsid}/images/{name}/snap"


class Side:
    """One image backend behind Nova's LibvirtDriver."""

    def __init__(self, name: str, driver) -> None:
        self.name = name
        self.driver = driver
        self.boots: list[dict[str, float]] = []
        self.deletes: list[dict[str, float]] = []

    def round(self) -> None:
        from nova import context, objects

        flavor = objects.Flavor(
            root_gb=DISK_GB, ephemeral_gb=0, swap=0, extra_specs={}
        )
        instance = objects.Instance(
            uuid=str(uuid.uuid4()),
            project_id=uuid.uuid4().hex,
            flavor=flavor,
            task_state="spawning",
            vm_state="building",
            trusted_certs=None,
            migration_context=None,
            config_drive="True",
            system_metadata={},
            image_ref="",
        )
        mapping = {"disk": {"bus": "virtio", "type": "disk", "dev": "vda"}}
        with counters.measured(self.boots):
            self.driver._create_and_inject_local_root(
                context.get_admin_context(),
                instance,
                mapping,
                False,
                "",
                {"image_id": str(uuid.uuid4())},
                None,
                None,
            )
            disk = self.driver._get_guest_disk_config(
                instance, "disk", mapping, flavor
            )
            disk.to_xml()
        instance.task_state = "deleting"
        with counters.measured(self.deletes):
            self.driver._cleanup_rbd(instance)


class Floor:
    """The bare librbd calls on an open connection."""

    name = "floor"

    def __init__(self, cluster: ceph.CephCluster, url: str) -> None:
        import rados

        self._parent = url.split("/")[-2]
        self._client = rados.Rados(conffile=str(cluster.conf), rados_id="nova")
        self._client.connect()
        self._images = self._client.open_ioctx("images")
        self._vms = self._client.open_ioctx("vms")
        self.boots: list[dict[str, float]] = []
        self.deletes: list[dict[str, float]] = []

    def round(self) -> None:
        import rbd

        name, librbd = str(uuid.uuid4()), rbd.RBD()
        with counters.measured(self.boots):
            librbd.clone(self._images, self._parent, "snap", self._vms, name)
            with rbd.Image(self._vms, name) as image:
                image.resize(DISK_GB << 30)
        with counters.measured(self.deletes):
            librbd.trash_move(self._vms, name)


def summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """Median and extremes of the milliseconds, medians of the counts."""
    times = sorted(row["ms"] for row in rows)
    found = {
        "median_ms": statistics.median(times),
        "min_ms": times[0],
        "max_ms": times[-1],
    }
    for count in ("connections", "programs", "opens"):
        found[count] = statistics.median(row.get(count, 0) for row in rows)
    return found


def show(sides: list, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Print the table; return the same figures."""
    result: dict[str, dict[str, dict[str, float]]] = {}
    print(f"\n{rounds} rounds, in turn; median [min-max] milliseconds")
    print(
        f"{'':8} {'':9} {'ms':>24} {'connections':>12} {'programs':>9}"
        f" {'opens':>6} {'x floor':>8}"
    )
    floor = {
        "boot": summary(sides[-1].boots)["median_ms"],
        "delete": summary(sides[-1].deletes)["median_ms"],
    }
    for work in ("boot", "delete"):
        for side in sides:
            rows = side.boots if work == "boot" else side.deletes
            row = summary(rows)
            row["times_floor"] = row["median_ms"] / floor[work]
            result.setdefault(work, {})[side.name] = row
            spread = (
                f"{row['median_ms']:.1f}"
                f" [{row['min_ms']:.1f}-{row['max_ms']:.1f}]"
            )
            print(
                f"{work:8} {side.name:9} {spread:>24}"
                f" {row['connections']:>12g} {row['programs']:>9g}"
                f" {row['opens']:>6g} {row['times_floor']:>8.2f}"
            )
    return result


def run(cluster: ceph.CephCluster, state: str, options) -> None:
    settle_configuration(cluster, state)
    counters.install()
    from nova import objects

    objects.register_all()
    from nova_rbd_backend.virt import startup

    ours_class = startup.driver_class()
    from nova.storage import rbd_utils
    from nova.virt import fake
    from nova.virt.libvirt import driver, imagebackend

    from nova_rbd_backend.virt import imagebackend as our_imagebackend

    in_tree_rbd_driver = rbd_utils.RBDDriver
    url = make_parent(cluster)
    imagebackend.IMAGE_API = GlanceReply(url)
    our_imagebackend.IMAGE_API = GlanceReply(url)
    ours = Side("plugin", ours_class(fake.FakeVirtAPI()))
    # Ours has replaced it for the whole process; the other side needs it.
    rbd_utils.RBDDriver = in_tree_rbd_driver
    in_tree = Side("in-tree", driver.LibvirtDriver(fake.FakeVirtAPI()))
    sides = [ours, in_tree, Floor(cluster, url)]
    for number in range(options.rounds + 1):
        for side in sides:
            side.round()
        if number == 0:  # the first round connects and warms the caches
            warm = {s.name: (s.boots.pop(), s.deletes.pop()) for s in sides}
        print(f"\rround {number} of {options.rounds}", end="", flush=True)
    result = show(sides, options.rounds)
    print("\nfirst boot of the process, with its connection:")
    for name, (boot, _delete) in warm.items():
        print(f"{'':8} {name:9} {boot}")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(result, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", help="write the figures into this file too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nova-rbd-bench.") as folder:
        print("starting a throwaway Ceph", flush=True)
        cluster = ceph.CephCluster(pathlib.Path(folder, "ceph"))
        try:
            cluster.start()
            run(cluster, folder, options)
        finally:
            cluster.destroy()


if __name__ == "__main__":
    main()
