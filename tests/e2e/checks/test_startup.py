# SPDX-License-Identifier: Apache-2.0

"""Start nova-compute with wrong configurations, and with right ones.

A wrong configuration must end it at once, with exit code 1 and one line that
says what is wrong and how to correct it. Here is one test for each place in
nova-compute's start where that happens after nova-conductor has answered, and
for the modules that may be missing. tests/nova/virt/test_refused_options.py
has those before it, tests/unit/conf all options, and tests/functional/checks
all that a cluster or libvirt may lack.
"""

import pathlib
import re
from collections.abc import Iterator

import pytest

from tests.testbed.conf_file import Conf
from tests.testbed.host.compute_host import ComputeHost
from tests.testbed.openstack import compute_conf
from tests.testbed.whole import Testbed

# The first test of a run waits for the whole OpenStack.
pytestmark = pytest.mark.timeout(600)

REFUSAL_SECONDS = 60
REFUSAL = re.compile(r"CRITICAL .*nova-compute cannot start: (.*)")
# No generic flag is set, as on a host that has never had this backend.
NO_FLAGS = {
    "libvirt_images_type": None,
    "libvirt_images_store": None,
    "libvirt_images_snapshot_store": None,
    "rbd_user": None,
    "rbd_secret_uuid": None,
}
# The same settings, as Nova's own options.
NOVA_FLAGS = {
    "images_type": "rbd",
    "images_rbd_pool": "vms",
    "rbd_user": "nova",
    "rbd_secret_uuid": compute_conf.SECRET_UUID,
}


def refusal(
    stack: Testbed,
    host: ComputeHost,
    overrides: Conf,
    env: dict[str, str] | None = None,
) -> str:
    """Start nova-compute, which must give up; return the line with why."""
    compute = stack.compute(host)
    compute.configure("plugin", overrides)
    code, log = compute.run_to_end(REFUSAL_SECONDS, env)
    assert code == 1, log[-3000:]
    lines = REFUSAL.findall(log)
    assert len(lines) == 1, log[-3000:]
    assert "Traceback" not in log, log[-3000:]
    assert stack.cluster.key("nova") not in log
    return str(lines[0])


def test_missing_pool(stack: Testbed, spare_host: ComputeHost) -> None:
    line = refusal(
        stack, spare_host, {"DEFAULT": {"libvirt_images_store": "nowhere"}}
    )
    for word in ("'nowhere'", "libvirt_images_store", "rbd pool init"):
        assert word in line


def test_no_monitor_answers(
    stack: Testbed, spare_host: ComputeHost, tmp_path: pathlib.Path
) -> None:
    conf = ceph_conf(
        stack, tmp_path, r"(?m)^mon_host = .*$", "mon_host = 127.0.0.1:9"
    )
    line = refusal(
        stack,
        spare_host,
        {"libvirt": {"images_rbd_ceph_conf": conf, "rbd_connect_timeout": 3}},
    )
    assert "127.0.0.1:9" in line or str(conf) in line


def test_secret_with_another_key(
    stack: Testbed, spare_host: ComputeHost
) -> None:
    other = stack.cluster.key("glance")
    spare_host.set_secret(compute_conf.SECRET_UUID, "nova", other)
    try:
        line = refusal(stack, spare_host, {})
    finally:
        stack.give_secret(spare_host)
    assert compute_conf.SECRET_UUID in line
    assert "ceph auth get-key client.nova" in line
    assert other not in line


@pytest.mark.parametrize("module", ["rados", "rbd"])
def test_ceph_bindings_missing(
    stack: Testbed,
    spare_host: ComputeHost,
    tmp_path: pathlib.Path,
    module: str,
) -> None:
    shim = tmp_path / f"{module}.py"
    shim.write_text("raise ImportError('not here')\n")
    line = refusal(stack, spare_host, {}, {"PYTHONPATH": str(tmp_path)})
    assert f"python3-{module}" in line


# -- right configurations --------------------------------------------------


OURS = "Instance disks: images_type=rbd, pool=vms,"
NOVAS = "Instance disks: images_type=default, through Nova's own code"
GOOD: dict[str, tuple[Conf, str]] = {
    "Nova's own flags": ({"DEFAULT": NO_FLAGS, "libvirt": NOVA_FLAGS}, OURS),
    "no flags": ({"DEFAULT": NO_FLAGS}, NOVAS),
}


@pytest.fixture
def stopped(stack: Testbed, spare_host: ComputeHost) -> Iterator[None]:
    """Stop the spare host's nova-compute after the test."""
    yield
    stack.compute(spare_host).stop()


def test_generic_flags(stack: Testbed) -> None:
    """The hosts of all tests have been started with them."""
    for host in stack.hosts:
        log = stack.compute(host).log.read_text()
        assert OURS in log
        assert not REFUSAL.search(log)


@pytest.mark.parametrize(("overrides", "said"), GOOD.values(), ids=GOOD)
def test_other_flags(
    stack: Testbed,
    spare_host: ComputeHost,
    stopped: None,
    overrides: Conf,
    said: str,
) -> None:
    stack.compute(spare_host).log.unlink(missing_ok=True)
    # Returns when Nova and Placement know the host.
    log = stack.start_compute(spare_host, overrides).log.read_text()
    assert said in log
    assert not REFUSAL.search(log)


def ceph_conf(
    stack: Testbed, folder: pathlib.Path, pattern: str, text: str
) -> pathlib.Path:
    """The cluster's ceph.conf with one line changed."""
    changed, count = re.subn(pattern, text, stack.cluster.conf.read_text())
    assert count == 1
    path = folder / "ceph.conf"
    path.write_text(changed)
    return path
