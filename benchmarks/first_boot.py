# SPDX-License-Identifier: Apache-2.0

"""The first boot of images in several formats and sizes."""

import contextlib
import dataclasses
import functools
import http.server
import pathlib
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import images
from benchmarks.bench import Bench, in_turn
from benchmarks.floor_side import convert_command
from benchmarks.nova_side import allocated
from benchmarks.results import Column, Report

MIB = 1 << 20
# Bigger disks are booted once, because they take minutes.
_BIG_MIB = 4096
NAME = "first_boot"
TITLE = "First boot of an image in Glance's file store"
ABOUT = (
    "A quarter of each image is data, unless the case says otherwise. The "
    "floor does the work by programs, without Nova: curl downloads the file "
    "by HTTP, sha512sum and qemu-img info look at it, and qemu-img convert "
    'writes it into the pool. "CPU" is that of the host\'s processes. "MiB '
    "local\" is the space on the local disk, beside the image in Glance's "
    "store: the most that was in use, and what was left."
)
COLUMNS = (
    Column("seconds", "seconds", 2, spread=True),
    Column("cpu_seconds", "CPU seconds", 2),
    Column("local_peak_mib", "MiB local, at most", 0),
    Column("local_left_mib", "MiB local, left", 0),
)


@dataclasses.dataclass(frozen=True)
class Case:
    """An image: of which format, and how qemu-img makes it of a raw file."""

    name: str
    form: str
    virtual_mib: int
    data_mib: int
    options: tuple[str, ...] = ()


def _cases(bench: Bench) -> Iterator[Case]:
    if bench.quick:
        yield Case("qcow2, compressed", "qcow2", 64, 16, ("-c",))
        yield Case("raw", "raw", 64, 16)
        return
    for gib in (1, 4, 16):
        if gib > bench.limit_gib:
            continue
        yield Case(f"qcow2, {gib} GiB", "qcow2", gib * 1024, gib * 256)
        yield Case(f"raw, {gib} GiB", "raw", gib * 1024, gib * 256)
    yield Case("qcow2, 90 % zeros", "qcow2", 1024, 104, ("-S", "0"))
    yield Case("qcow2, compressed", "qcow2", 1024, 256, ("-c",))
    big = ("-c", "-o", "cluster_size=2M")
    yield Case("qcow2, compressed, 2 MiB", "qcow2", 1024, 256, big)
    stream = ("-o", "subformat=streamOptimized")
    yield Case("vmdk", "vmdk", 1024, 256, stream)
    yield Case("vhdx", "vhdx", 1024, 256)


def run(bench: Bench) -> Report:
    report = Report(NAME, TITLE, ABOUT, COLUMNS)
    with bench.hosts() as hosts, _served(bench.folder) as url:
        for case in _cases(bench):
            raw = bench.raw_file(case.virtual_mib, case.data_mib)
            path = raw
            if case.form != "raw":
                path = images.converted(raw, case.form, *case.options)
            image = images.in_file(path, case.form)
            times = bench.times(1 if case.virtual_mib > _BIG_MIB else 3)
            for number in range(times + bench.warm_ups):
                for side in in_turn(hosts, number):
                    bench.progress(f"{NAME}: {case.name}, {side}, {number}")
                    (host,) = hosts[side]
                    work = functools.partial(
                        _by_programs if side == "floor" else _by_nova,
                        *(host, image, case.virtual_mib // 1024 or 1),
                        **({"url": url} if side == "floor" else {}),
                    )
                    sample = measured(bench, work)
                    if number >= bench.warm_ups:
                        report.add(case.name, side, sample)
            if path != raw:
                path.unlink()
    return report


def _by_programs(
    host: Any, image: images.Image, _gib: int, url: str
) -> dict[str, float]:
    folder = host.folder / "instances"
    folder.mkdir(exist_ok=True)
    staged, source = str(folder / "staged"), pathlib.Path(str(image.path))
    target = f"{uuid.uuid4()}_disk"
    commands = [
        ["curl", "-sSf", "-o", staged, f"{url}/{source.name}"],
        ["sha512sum", staged],
        ["qemu-img", "info", "--output=json", staged],
        convert_command(host.conf, staged, image.disk_format, target),
    ]
    found = [host.ask("tool", command=command) for command in commands]
    return {
        key: sum(each[key] for each in found) for key in ("ms", "cpu_seconds")
    }


def _by_nova(host: Any, image: images.Image, gib: int) -> dict[str, float]:
    """Boot from an image that no cache knows."""
    fresh = image.fresh()
    host.ask("know", **vars(fresh))
    return host.ask(
        "boot", instance=str(uuid.uuid4()), image=fresh.image_id, gib=gib
    )


def measured(
    bench: Bench, work: Callable[[], dict[str, float]]
) -> dict[str, float]:
    """Do the work, and clean up what it leaves locally and in Ceph."""
    with _watched(bench.folder) as peak:
        found = work()
    left = sum(map(allocated, bench.folder.glob("hosts/*/instances")))
    for place in bench.folder.glob("hosts/*/instances/**/*"):
        if place.is_file():
            place.unlink()
    bench.meters.clean()
    return {
        "seconds": found["ms"] / 1000,
        "cpu_seconds": found["cpu_seconds"],
        "local_peak_mib": max(peak) / MIB,
        "local_left_mib": left / MIB,
    }


@contextlib.contextmanager
def _watched(folder: pathlib.Path) -> Iterator[list[int]]:
    """Note many times a second what the hosts have on the local disk."""
    found, done = [0], threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            found.append(sum(map(allocated, folder.glob("hosts/*/instances"))))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


@contextlib.contextmanager
def _served(folder: pathlib.Path) -> Iterator[str]:
    """Serve the files of a folder by HTTP; lend the URL of the folder."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_message: Any) -> None:
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
