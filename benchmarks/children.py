# SPDX-License-Identifier: Apache-2.0

"""Boot and delete an instance, beside more and more clones of its image."""

import uuid
from typing import Any

from benchmarks import images
from benchmarks.bench import Bench, in_turn
from benchmarks.results import Column, Report
from nova_rbd_backend.ceph import cluster
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.settings import ClusterSettings
from tests.support.many import remove_clones, write_clones

NAME = "children"
TITLE = "Boot of one instance with N other clones of its image"
ABOUT = (
    "The other clones are recorded as clones of the image, and do not exist. "
    "The work of the OSDs is that of a boot, a delete and its purge."
)
COLUMNS = (
    Column("ms", "boot, ms", spread=True, ratio=True),
    Column("delete_ms", "delete, ms", spread=True),
    Column("osd_ms", "CPU of the OSDs, ms", 0),
    Column("db_mib", "MiB written by the OSDs' databases"),
)


def run(bench: Bench) -> Report:
    report = Report(NAME, TITLE, ABOUT, COLUMNS)
    image = images.in_ceph(bench.cluster, bench.raw_file(64, 8))
    settings = ClusterSettings(str(bench.cluster.conf), "admin", 30, 60)
    pool = Pool(cluster.connect(settings), "images")
    image_id = pool.directory.existing_id(image.image_id, "find")
    with bench.hosts() as hosts:
        for (host,) in hosts.values():
            host.ask("know", **vars(image))
        for count in bench.size([1, 300, 5000, 20000], [1, 300]):
            clones = [f"deadbeef{number:04x}" for number in range(count)]
            write_clones(pool, image_id, clones)
            bench.progress(f"{NAME}: {count} clones")
            for number in range(bench.times(15) + bench.warm_ups):
                for side in in_turn(hosts, number):
                    sample = _boot_and_delete(bench, hosts[side][0], image)
                    if number >= bench.warm_ups:
                        report.add(str(count), side, sample)
        remove_clones(pool, image_id)
    return report


def _boot_and_delete(
    bench: Bench, host: Any, image: images.Image
) -> dict[str, float]:
    instance = str(uuid.uuid4())
    before = bench.meters.work_of_osds()
    sample = host.ask("boot", instance=instance, image=image.image_id)
    deleted = host.ask("delete", instance=instance)
    bench.meters.wait_for_empty_trash()
    after = bench.meters.work_of_osds()
    work = {key: after[key] - before[key] for key in after}
    return {**sample, "delete_ms": deleted["ms"], **work}
