# SPDX-License-Identifier: Apache-2.0

"""Fill the databases: schemas, Keystone's admin, Nova's cells."""

import base64
import concurrent.futures
import os
import pathlib
import subprocess
from collections.abc import Sequence

from tests.testbed.openstack.site_facts import REGION, Site
from tests.testbed.process import TestbedError

SYNC_SECONDS = 300


def sync(site: Site) -> None:
    """Fill all databases in parallel, unless that has been done already.

    :raises TestbedError: a command failed; names its log
    """
    done = site.folder / "databases-complete"
    if done.exists():
        return
    with concurrent.futures.ThreadPoolExecutor() as pool:
        jobs = [
            pool.submit(job, site)
            for job in (_nova, _keystone, _placement, _glance)
        ]
        for job in jobs:
            job.result()
    done.touch()


def _keystone(site: Site) -> None:
    manage = [
        site.bin("keystone-manage"),
        "--config-file",
        str(site.etc("keystone") / "keystone.conf"),
    ]
    _run(site, "sync-keystone", [*manage, "db_sync"])
    for repository in ("fernet-keys", "credential-keys"):
        _make_keys(site.etc("keystone") / repository)
    url = site.url("keystone", "/v3")
    # The password goes into the environment, because others can read command
    # lines.
    _run(
        site,
        "sync-keystone",
        [
            *manage,
            "bootstrap",
            "--bootstrap-admin-url",
            url,
            "--bootstrap-internal-url",
            url,
            "--bootstrap-public-url",
            url,
            "--bootstrap-region-id",
            REGION,
        ],
        {"OS_BOOTSTRAP_PASSWORD": site.password},
    )


def _make_keys(repository: pathlib.Path) -> None:
    """Make a key that is in use, 1, and the next one, 0.

    ``keystone-manage fernet_setup`` and ``credential_setup`` do the same, but
    each takes three seconds of CPU to start.
    """
    repository.mkdir(0o700, parents=True, exist_ok=True)
    for number in ("0", "1"):
        key = repository / number
        if not key.exists():
            key.touch(0o600)
            key.write_bytes(base64.urlsafe_b64encode(os.urandom(32)))


def _placement(site: Site) -> None:
    _run(
        site,
        "sync-placement",
        [
            site.bin("placement-manage"),
            "--config-file",
            str(site.etc("placement") / "placement.conf"),
            "db",
            "sync",
        ],
    )


def _glance(site: Site) -> None:
    _run(
        site,
        "sync-glance",
        [
            site.bin("glance-manage"),
            "--config-file",
            str(site.etc("glance") / "glance-api.conf"),
            "db_sync",
        ],
    )


def _nova(site: Site) -> None:
    manage = [
        site.bin("nova-manage"),
        "--config-file",
        str(site.etc("nova") / "nova.conf"),
    ]
    _run(site, "sync-nova", [*manage, "api_db", "sync"])
    _run(site, "sync-nova", [*manage, "cell_v2", "map_cell0"])
    # Exit code 2 means that a cell with this database and message queue
    # exists, from a run that was interrupted.
    _run(
        site,
        "sync-nova",
        [*manage, "cell_v2", "create_cell", "--name", "cell1"],
        fine=(0, 2),
    )
    _run(site, "sync-nova", [*manage, "db", "sync"])


def _run(
    site: Site,
    name: str,
    command: Sequence[str],
    env: dict[str, str] | None = None,
    fine: Sequence[int] = (0,),
) -> None:
    log: pathlib.Path = site.log(name)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**site.environment(), **(env or {})},
            timeout=SYNC_SECONDS,
        )
    if done.returncode not in fine:
        program = pathlib.Path(command[0]).name
        raise TestbedError(
            f"{program} {' '.join(command[3:6])}: exit code "
            f"{done.returncode}, see {log}"
        )
