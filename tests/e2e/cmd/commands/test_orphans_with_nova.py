# SPDX-License-Identifier: Apache-2.0

"""nova-rbd orphans with Nova's API: no server's disk is an orphan."""

import contextlib
import json
import pathlib
import signal
import subprocess
import uuid
from collections.abc import Iterator

import openstack.connection
import pytest
from openstack.compute.v2.flavor import Flavor
from openstack.compute.v2.server import Server

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import cluster
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.cmd import clouds
from nova_rbd_backend.storage.images import purge
from tests.e2e.conftest import Images
from tests.support.blank_disks import blank_disk
from tests.support.clients import connect
from tests.support.program import Program
from tests.testbed.ceph import rbd_view
from tests.testbed.conf_file import Conf
from tests.testbed.openstack.servers import Servers
from tests.testbed.process import Process, wait_for
from tests.testbed.whole import Testbed

# The first test of a run waits for the whole OpenStack.
pytestmark = pytest.mark.timeout(600)

MIB = 1 << 20
# tests/functional tests the age.
ANY_AGE = ("--older-than", "0s")
# Each page of a list has one server; a deleted server is kept for a while.
API: Conf = {
    "DEFAULT": {"reclaim_instance_interval": 600},
    "api": {"max_limit": 1},
}
# What a cloud may allow to users who are not Nova's admins.
POLICY = {
    "os_compute_api:servers:index:get_all_tenants": "",
    "os_compute_api:servers:detail:get_all_tenants": "",
    "os_compute_api:os-hypervisors:list": "",
}


@pytest.fixture
def vms(stack: Testbed) -> Iterator[Pool]:
    """The pool of the disks, as Nova's user."""
    yield Pool(connect(stack.cluster), "vms")
    # The cached connections would keep trying to reach a removed cluster.
    cluster._CLUSTERS.clear()


@pytest.fixture
def orphan(vms: Pool, servers: Servers) -> Iterator[str]:
    """The name of a disk whose instance no Nova knows."""
    name = f"{uuid.uuid4()}_disk"
    blank_disk(vms, name, MIB)
    yield name
    vms.remove(name)
    for each in vms.trash.entries():
        if each.name == name:
            purge.purge_one(vms, name, each.image_id, force=True)


@pytest.fixture
def tool(
    stack: Testbed, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Program:
    """The nova-rbd program, with the credentials of the admin."""
    for key, value in stack.client_environment().items():
        if key.startswith("OS_"):
            monkeypatch.setenv(key, value)
    return Program(tmp_path, stack.cluster.conf)


def orphans(tool: Program, *more: str) -> dict[str, str]:
    """Run nova-rbd orphans; return the state of each row by its name."""
    rows = tool.json("orphans", *ANY_AGE, *more)
    return {row["Name"]: row["State"] for row in rows}


@pytest.fixture
def small_pages(stack: Testbed, servers: Servers) -> Iterator[None]:
    stack.openstack.restart_nova_api(API)
    yield
    stack.openstack.restart_nova_api({})


@pytest.fixture
def soft_deleted(
    stack: Testbed,
    images: Images,
    servers: Servers,
    flavor: Flavor,
    small_pages: None,
) -> Iterator[Server]:
    """A deleted server that no list has, and that can be restored."""
    nova = stack.openstack.connection().compute
    server = servers.boot("soft-deleted", images.raw, flavor)
    nova.delete_server(server)
    yield servers.wait(server, "SOFT_DELETED")
    nova.delete_server(server, force=True)
    nova.wait_for_delete(server, interval=1, wait=60)


def test_quarantine_and_back(
    stack: Testbed,
    images: Images,
    servers: Servers,
    all_disks: Flavor,
    flavor: Flavor,
    soft_deleted: Server,
    orphan: str,
    tool: Program,
) -> None:
    """Servers in all states keep their disks; the orphan is quarantined."""
    nova = stack.openstack.connection().compute
    kept = servers.boot("kept", images.raw, all_disks, config_drive=True)
    nova.rescue_server(kept, image_ref=images.raw.id)
    servers.wait(kept, "RESCUE")
    shelved = servers.boot("shelved", images.raw, flavor)
    nova.shelve_server(shelved)
    servers.wait(shelved, "SHELVED")
    nova.shelve_offload_server(shelved)
    servers.wait(shelved, "SHELVED_OFFLOADED")
    assert soft_deleted.id not in {each.id for each in nova.servers()}
    disks = rbd_view.images(stack.cluster, "vms")
    assert len(disks) == 8, "kept: 4, and 2 to rescue it; soft_deleted; orphan"

    (row,) = tool.json("orphans")
    assert (row["Name"], row["State"]) == (orphan, "young")
    assert orphans(tool) == {orphan: "orphan"}
    would = {orphan: "would be quarantined"}
    assert orphans(tool, "--quarantine", "--dry-run") == would
    assert rbd_view.images(stack.cluster, "vms") == disks

    assert orphans(tool, "--quarantine") == {orphan: "quarantined"}

    del disks[orphan]
    assert rbd_view.images(stack.cluster, "vms") == disks
    assert rbd_view.trash(stack.cluster, "vms") == [orphan]
    assert orphans(tool) == {}
    (row,) = tool.json("trash", "list")
    assert (row["Name"], row["State"]) == (orphan, "kept")
    tool.json("trash", "restore", orphan)
    assert orphans(tool) == {orphan: "orphan"}

    nova.unrescue_server(kept)
    servers.wait(kept)


def test_server_that_is_being_built(
    stack: Testbed,
    images: Images,
    servers: Servers,
    flavor: Flavor,
    orphan: str,
    tool: Program,
) -> None:
    """From the request until the deletion its disks are no orphans."""
    compute = stack.compute(stack.hosts[0])
    with paused(compute.process):
        server = servers.create("under-way", images.raw, flavor)
        assert orphans(tool) == {orphan: "orphan"}
    disk = f"{server.id}_disk"
    wait_for(
        "the disk is made",
        lambda: disk in rbd_view.images(stack.cluster, "vms"),
        60,
        interval_seconds=0.02,
    )
    with paused(compute.process):
        assert orphans(tool) == {orphan: "orphan"}
        assert servers.get(server).status == "BUILD"
    servers.wait(server)
    assert orphans(tool) == {orphan: "orphan"}
    servers.delete(server)
    assert orphans(tool) == {orphan: "orphan"}


@contextlib.contextmanager
def paused(process: Process) -> Iterator[None]:
    """Stop a process for less time than Nova takes to call its host down."""
    process.freeze()
    try:
        yield
    finally:
        process.signal(signal.SIGCONT)


@pytest.fixture
def user(stack: Testbed) -> Iterator[openstack.connection.Connection]:
    """A user of another project, who is not an admin."""
    admin = stack.openstack.connection()
    identity = admin.identity
    project = identity.create_project(name="theirs", domain_id="default")
    them = identity.create_user(
        name="them",
        password="theirs",
        domain_id="default",
        default_project_id=project.id,
    )
    role = identity.find_role("member") or identity.create_role(name="member")
    identity.assign_project_role_to_user(project, them, role)
    auth = {**admin.config.config["auth"], "username": "them"}
    auth.update(password="theirs", project_name="theirs")
    yield openstack.connection.Connection(
        auth=auth,
        region_name=admin.config.region_name,
        compute_default_microversion="2.90",
    )
    identity.delete_user(them)
    identity.delete_project(project)


@pytest.fixture
def as_user(tool: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {
        "USERNAME": "them",
        "PASSWORD": "theirs",
        "PROJECT_NAME": "theirs",
    }.items():
        monkeypatch.setenv(f"OS_{key}", value)


@pytest.fixture
def generous_api(
    stack: Testbed, servers: Servers, tmp_path: pathlib.Path
) -> Iterator[None]:
    policy = tmp_path / "policy.yaml"
    policy.write_text(json.dumps(POLICY))
    stack.openstack.restart_nova_api(
        {"oslo_policy": {"policy_file": str(policy)}}
    )
    yield
    stack.openstack.restart_nova_api({})


def test_servers_of_another_project(
    images: Images,
    servers: Servers,
    flavor: Flavor,
    user: openstack.connection.Connection,
    orphan: str,
    tool: Program,
) -> None:
    theirs = Servers(user).boot("theirs", images.raw, flavor)

    assert orphans(tool) == {orphan: "orphan"}

    servers.delete(theirs)


def test_refuses_a_user_who_may_not_list_all_servers(
    images: Images,
    servers: Servers,
    flavor: Flavor,
    user: openstack.connection.Connection,
    orphan: str,
    tool: Program,
    as_user: None,
) -> None:
    Servers(user).boot("theirs", images.raw, flavor)

    said = tool.refused("orphans", *ANY_AGE)

    assert "may not be asked" in said
    assert "administrator" in said
    servers.delete_all()


def test_refuses_a_user_who_may_list_all_servers_but_not_show_them(
    images: Images,
    servers: Servers,
    flavor: Flavor,
    user: openstack.connection.Connection,
    generous_api: None,
    orphan: str,
    tool: Program,
    as_user: None,
) -> None:
    server = servers.boot("not-theirs", images.raw, flavor)

    said = tool.refused("orphans", *ANY_AGE)

    assert server.id in said
    assert "Nova of OS_*/" in said


@pytest.fixture
def cell_down(stack: Testbed, servers: Servers) -> Iterator[None]:
    """Nova's API cannot reach the database of cell1."""
    site = stack.openstack.site
    conf = str(site.etc("nova") / "nova.conf")

    def manage(*words: str) -> str:
        return subprocess.run(
            [
                site.bin("nova-manage"),
                "--config-file",
                conf,
                "cell_v2",
                *words,
            ],
            capture_output=True,
            text=True,
            check=True,
            env=site.environment(),
            timeout=60,
        ).stdout

    (row,) = [
        line.split("|")
        for line in manage("list_cells", "--verbose").splitlines()
        if "cell1" in line
    ]
    cell, transport, database = (row[at].strip() for at in (2, 3, 4))
    update = ("update_cell", "--cell_uuid", cell, "--transport-url", transport)
    nowhere = "mysql+pymysql://nova:none@127.0.0.1:1/nova_cell1"
    manage(*update, "--database_connection", nowhere)
    try:
        # By default it would try for longer than the minute that Nova waits
        # for a cell.
        soon = {"database": {"max_retries": 1, "retry_interval": 1}}
        stack.openstack.restart_nova_api(soon)
        yield
    finally:
        manage(*update, "--database_connection", database)
        stack.openstack.restart_nova_api({})


def test_nothing_is_found_while_a_cell_is_down(
    stack: Testbed,
    images: Images,
    servers: Servers,
    flavor: Flavor,
    orphan: str,
    tool: Program,
    request: pytest.FixtureRequest,
) -> None:
    """Nova's lists omit the servers of such a cell, without a warning."""
    server = servers.boot("in-cell", images.raw, flavor)
    request.getfixturevalue("cell_down")

    assert "failed" in tool.refused("orphans", *ANY_AGE)
    (cloud,) = clouds.connect(None, None)
    with pytest.raises(errors.NovaUnclear, match="answers 500"):
        cloud.knows(server.id)
    assert not cloud.knows(orphan.partition("_")[0])
