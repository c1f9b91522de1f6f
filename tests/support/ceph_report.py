# SPDX-License-Identifier: Apache-2.0

"""Report the state of a cluster when a test failed."""

import json
import pathlib
import subprocess
from collections.abc import Iterator
from typing import Any

import rados

from tests.testbed.ceph import pools
from tests.testbed.ceph.cluster import CephCluster
from tests.testbed.process import TestbedError

# Of a daemon that has ended by itself; its log ends with why.
_DAEMON_LINES = 40
_OSD_LINES = 10
# A change of a placement group's state.
_ROUTINE = " pg_epoch: "
_OSD_SECONDS = 10
# A request that waits, and one that took longer than an OSD calls slow.
_REQUESTS = ("dump_ops_in_flight", "dump_historic_slow_ops")
_LATE_SECONDS = 5
_MOST_REQUESTS = 10


def of_ceph(cluster: CephCluster) -> str:
    """Return its health, its daemons, and the requests that wait in OSDs.

    A daemon that died by itself is the cause of most that fails after it; its
    last words are in the report. A request that waits has the steps that it
    has gone through.
    """
    lines = []
    try:
        with cluster.admin() as admin:
            health = pools.command(admin, "health", detail="detail")
            lines += [health["status"]]
            lines += [
                f"{name}: {each['summary']['message']}"
                for name, each in health["checks"].items()
            ]
    except (rados.Error, TestbedError) as error:
        lines.append(f"no answer: {error}")
    for name, pid, memory in cluster.status():
        lines.append(f"{name}: pid {pid}, {memory} MiB")
        if pid == "-":
            lines += _said(cluster, name, _DAEMON_LINES)
        elif name.startswith("osd"):
            lines += _said(cluster, name, _OSD_LINES)
            lines += _late(cluster.socket(name))
    return "\n".join(lines)


def _said(cluster: CephCluster, name: str, count: int) -> Iterator[str]:
    """The last lines of a daemon's logs."""
    for log in sorted((cluster.folder / "log").glob(f"{name}.*")):
        said = [
            line
            for line in log.read_text(errors="replace").splitlines()
            if line.strip() and _ROUTINE not in line
        ]
        yield from (f"  {each}" for each in said[-count:])


def _late(socket: pathlib.Path) -> Iterator[str]:
    """Tell of the requests that an OSD has not answered in time."""
    for what in _REQUESTS:
        command = ("ceph", "--admin-daemon", str(socket), what)
        try:
            answer = subprocess.run(
                command, capture_output=True, check=True, timeout=_OSD_SECONDS
            ).stdout
        except subprocess.SubprocessError as error:
            yield f"  {what}: no answer: {error}"
            continue
        found = json.loads(answer)
        late = [
            each
            # Slow ones are under "Ops".
            for each in found.get("ops", found.get("Ops", []))
            if max(each["age"], each["duration"]) > _LATE_SECONDS
        ]
        for each in late[-_MOST_REQUESTS:]:
            yield f"  {what}: {_told(each)}"


def _told(request: dict[str, Any]) -> str:
    about = request["type_data"]
    events = ", ".join(
        f"{each['time'].partition('T')[2]} {each['event']}"
        for each in about["events"]
    )
    return (
        f"{request['description']}: {request['duration']} s, "
        f"{about['flag_point']}; {events}"
    )
