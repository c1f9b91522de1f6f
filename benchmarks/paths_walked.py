# SPDX-License-Identifier: Apache-2.0

"""Count the files that a reader of each path through the backend opens.

``python -m benchmarks.paths_walked [--checkout DIR] [--sequence]`` starts a
throwaway Ceph and takes each path twice: first to connect and to fill the
caches, then to count. The instance has one disk:

========  ================================================================
boot      make the disk as a clone of a raw image in Glance's pool, as
          LibvirtDriver._create_and_inject_local_root() does, and its part
          of the guest's XML
start     LibvirtDriver._create_guest(), without Nova's part
snapshot  direct_snapshot() of the disk, without Glance's part
delete    LibvirtDriver._cleanup_rbd()
========  ================================================================

The rule:

* Only the files of nova_rbd_backend/ count, and only the 'call' events of
  sys.setprofile(): calls of Python functions, and resumptions of generators.
* Each call is compared with the nearest caller below it on the stack that is
  in the package too; callers in Nova, in libraries and in Python's own modules
  are skipped. If that caller is in another file, or there is none, the call is
  one entry into its file. It is no entry if the caller is in the same file, as
  it is for comprehensions and for the file's own generators. It is one each
  time if another file resumes a generator: a ``with`` on another file's
  @contextmanager is two entries, for its begin and for its end.
* The return from a call is no entry.
* "returns" are the entries into a file that the same path has entered before:
  the number of entries less the number of files.
* "on stack" are the returns to a file that still waits for a call of its own:
  it has called another file, and that one calls it back.
* "pairs" are the different pairs of calling file and entered file among the
  entries. Unlike entries and returns they do not grow with loops.
* The thread in which Nova calls the driver is counted as "caller". All other
  threads are counted together as "background", until the work is done and
  none of them has entered a file for REST_SECONDS.
"""

import argparse
import importlib
import pathlib
import signal
import sys
import threading
import types
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks import bench, images, operations, tables
from benchmarks.nova_side import NovaSide
from tests.testbed import paths, process

REST_SECONDS = 2
# The background waits 10 s before it retries what it could not finish.
LONG_REST_SECONDS = 12
REST_LIMIT_SECONDS = 180


class Entry(NamedTuple):
    """One call into a file of the package, from outside that file."""

    thread: int
    caller: str
    file: str
    function: str
    on_stack: bool


class Recorder:
    """Notes the entries into a package's files in all threads.

    Make it before the package starts a thread.
    """

    def __init__(self, package: pathlib.Path) -> None:
        self.entries: list[Entry] = []
        self._folder = f"{package}/"
        threading.setprofile(self._profile)

    def record(
        self, work: Callable[[], Any], rest: Callable[[], Any]
    ) -> dict[str, list[Entry]]:
        """Return the entries of the caller and of the background.

        :param rest: waits for what the work has left to the background
        """
        self.entries.clear()
        sys.setprofile(self._profile)
        try:
            work()
        finally:
            sys.setprofile(None)
        rest()
        self.wait_for_rest(REST_SECONDS)
        found: dict[str, list[Entry]] = {"caller": [], "background": []}
        for entry in self.entries:
            own = entry.thread == threading.get_ident()
            found["caller" if own else "background"].append(entry)
        return found

    def wait_for_rest(self, seconds: float) -> None:
        """Wait until no thread has entered a file for this many seconds."""
        seen = [-1]

        def still() -> bool:
            seen.append(len(self.entries))
            return seen[-1] == seen[-2]

        process.wait_for(
            "the background rests", still, REST_LIMIT_SECONDS, seconds
        )

    def _profile(self, frame: types.FrameType, event: str, _: Any) -> None:
        file = self._file(frame)
        if event != "call" or not file:
            return
        callers = list(self._callers(frame))
        caller = callers[0] if callers else ""
        if caller != file:
            function = frame.f_code.co_qualname
            self.entries.append(
                Entry(
                    threading.get_ident(),
                    caller,
                    file,
                    function,
                    file in callers,
                )
            )

    def _callers(self, frame: types.FrameType) -> Iterator[str]:
        """The package's files on the stack below a frame, nearest first."""
        below = frame.f_back
        while below:
            if file := self._file(below):
                yield file
            below = below.f_back

    def _file(self, frame: types.FrameType) -> str:
        """Return the frame's file in the package, or "" if it is elsewhere."""
        file = frame.f_code.co_filename
        if not file.startswith(self._folder):
            return ""
        return file.removeprefix(self._folder)


class Walker(NovaSide):
    """NovaSide, with the parts of a boot one by one."""

    def make_disk(self, instance: str, image: str) -> None:
        self._images[instance] = image
        self._make_disk(self._instance(instance, 1), image)

    def start(self, instance: str) -> None:
        self._start(self._instance(instance, 1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paths_walked",
        description=__doc__.split("\n")[0],
    )
    parser.add_argument(
        "--checkout",
        type=pathlib.Path,
        default=paths.CHECKOUT,
        metavar="DIR",
        help="count in this checkout's nova_rbd_backend (default: this one's)",
    )
    parser.add_argument(
        "--sequence", action="store_true", help="list each entry too"
    )
    return parser.parse_args()


def main() -> None:
    options = arguments()
    # SIGTERM cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    del sys.argv[1:]  # Nova looks at it.
    sys.path.insert(0, str(options.checkout.resolve()))
    module = importlib.import_module("nova_rbd_backend")
    package = pathlib.Path(str(module.__file__)).parent
    recorder = Recorder(package)
    with bench.on_throwaway_ceph(quick=True) as surroundings:
        folder = surroundings.folder / "host"
        folder.mkdir()
        conf = str(surroundings.cluster.conf)
        side = Walker("plugin", str(folder), conf, user="nova", green=False)
        image = images.in_ceph(
            surroundings.cluster, surroundings.raw_file(64, 8)
        )
        side.know(**vars(image))
        walk(surroundings, side, recorder, image.image_id)
        found = walk(surroundings, side, recorder, image.image_id)
    print("\n".join([str(package), *table(found)]))
    if options.sequence:
        print("\n".join(sequences(found)))


def walk(
    surroundings: bench.Bench, side: Walker, recorder: Recorder, image: str
) -> dict[tuple[str, str], list[Entry]]:
    """Take each path once; return the entries by path and thread."""
    instance = str(uuid.uuid4())
    found: dict[str, dict[str, list[Entry]]] = {}

    def at_once() -> None:
        """Wait for nothing."""

    found["boot"] = recorder.record(
        lambda: side.make_disk(instance, image), at_once
    )
    found["start"] = recorder.record(lambda: side.start(instance), at_once)
    operations.write(surroundings, instance, 0, 8)
    taken: dict[str, Any] = {}
    found["snapshot"] = recorder.record(
        lambda: taken.update(side.snapshot(instance, str(uuid.uuid4()))),
        lambda: surroundings.meters.wait_for_detached(instance, taken["url"]),
    )
    surroundings.meters.remove_snapshot(instance, taken["url"])
    recorder.wait_for_rest(LONG_REST_SECONDS)
    found["delete"] = recorder.record(
        lambda: side.delete(instance),
        surroundings.meters.wait_for_empty_trash,
    )
    return {
        (path, thread): entries
        for path, threads in found.items()
        for thread, entries in threads.items()
        if entries
    }


def table(found: dict[tuple[str, str], list[Entry]]) -> list[str]:
    lines = [["path", "thread", "files", "entries", "returns", "on stack"]]
    lines[0].append("pairs")
    for (path, thread), entries in found.items():
        files = len({entry.file for entry in entries})
        pairs = len({(entry.caller, entry.file) for entry in entries})
        counts = (
            files,
            len(entries),
            len(entries) - files,
            sum(entry.on_stack for entry in entries),
            pairs,
        )
        lines.append([path, thread, *map(str, counts)])
    return tables.columns(lines)


def sequences(found: dict[tuple[str, str], list[Entry]]) -> list[str]:
    lines: list[str] = []
    for (path, thread), entries in found.items():
        lines += ["", f"{path}, {thread}:"]
        lines += [
            f"    {each.caller or '-'} -> {each.file}  {each.function}"
            for each in entries
        ]
    return lines


if __name__ == "__main__":
    main()
