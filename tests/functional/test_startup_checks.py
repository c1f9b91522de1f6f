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

"""What stops nova-compute at start, on a real Ceph and libvirt's own secrets.

Each case ends in one line that says what is wrong and how to mend it.
"""

import base64
import dataclasses
import json
import socket
import subprocess
import sys
import uuid

import libvirt
import pytest
import rbd

from nova_rbd_backend import conf as options
from nova_rbd_backend import errors
from nova_rbd_backend.cmd import check
from nova_rbd_backend.storage import health
from nova_rbd_backend.virt import secret
from tests.testbed import ceph_users
from tests.testbed.ceph import CephCluster


@pytest.fixture(scope="module")
def ceph(tmp_path_factory):
    cluster = CephCluster(tmp_path_factory.mktemp("ceph"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.destroy()


@pytest.fixture
def secret_uuid():
    """Another one for each test: undefining in an embedded driver crashes.

    (libvirt 9.0, virSecretUndefine, segmentation fault.)
    """
    return str(uuid.uuid4())


@pytest.fixture
def good(ceph, secret_uuid):
    return options.Settings(
        images_type="rbd",
        pool="vms",
        data_pool="vms-data",
        user="nova",
        secret_uuid=secret_uuid,
        ceph_conf=str(ceph.conf),
        connect_timeout_seconds=5,
        operation_timeout_seconds=10,
        trash_retention_seconds=0,
        import_workers=4,
    )


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    """libvirt's secret driver, in this process with a folder of its own."""
    libvirt.virEventRegisterDefaultImpl()
    libvirt.registerErrorHandler(lambda *_: None, None)
    root = tmp_path_factory.mktemp("libvirt")
    connection = libvirt.open(f"secret:///embed?root={root}")
    yield connection
    connection.close()


def _secret_xml(secret_uuid):
    return (
        f"<secret private='no'><uuid>{secret_uuid}</uuid>"
        f"<usage type='ceph'><name>{secret_uuid}</name></usage></secret>"
    )


@pytest.fixture
def define(secrets, secret_uuid):
    """Return a function that defines the secret, with a value or without."""

    def define(value=None):
        found = secrets.secretDefineXML(_secret_xml(secret_uuid))
        if value is not None:
            found.setValue(value)

    return define


def _command(ceph, prefix, **args):
    with ceph.admin() as admin:
        command = json.dumps({"prefix": prefix, "format": "json", **args})
        code, answer, status = admin.mon_command(command, b"")
        assert code == 0, status
        return answer


def _user_with(ceph, name, **caps):
    """Make a Ceph user; its keyring is where ceph.conf looks for it."""
    answer = _command(
        ceph,
        "auth get-or-create",
        entity=f"client.{name}",
        caps=[text for pair in caps.items() for text in pair],
    )
    (user,) = json.loads(answer)
    ceph.keyring(name).write_text(f"[client.{name}]\n\tkey = {user['key']}\n")
    return name


def _refusal(settings, kind=errors.ConfigError):
    with pytest.raises(kind) as caught:
        health.check(settings)
    line = str(caught.value)
    assert "\n" not in line
    return line


def _probes(ceph, pool):
    with ceph.admin() as admin, admin.open_ioctx(pool) as ioctx:
        names = rbd.RBD().list(ioctx)
    return [name for name in names if name.startswith(health.PROBE_PREFIX)]


@pytest.mark.parametrize("data_pool", [None, "vms-data"])
def test_documented_caps_suffice(ceph, good, data_pool):
    health.check(dataclasses.replace(good, data_pool=data_pool))

    assert _probes(ceph, "vms") == []


def test_no_cluster_behind_the_address(tmp_path, good):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        path = tmp_path / "ceph.conf"
        path.write_text(
            f"[global]\nmon_host = v2:127.0.0.1:{unused.getsockname()[1]}\n"
            f"keyring = {good.ceph_conf.replace('ceph.conf', '')}"
            "ceph.$name.keyring\n"
        )
        line = _refusal(
            dataclasses.replace(
                good, ceph_conf=str(path), connect_timeout_seconds=1
            ),
            errors.ClusterUnreachable,
        )

    assert "monitors" in line


def test_no_conf_file(good):
    line = _refusal(
        dataclasses.replace(good, ceph_conf="/nonexistent/ceph.conf"),
        errors.ConfFileNotFound,
    )

    assert "ceph.conf" in line


def test_no_keyring(good):
    line = _refusal(
        dataclasses.replace(good, user="stranger"), errors.StorageError
    )

    assert "keyring" in line


def test_no_pool(good):
    line = _refusal(dataclasses.replace(good, pool="vmz"))

    assert "has no pool 'vmz' (libvirt_images_store)" in line


def test_no_data_pool(good):
    line = _refusal(dataclasses.replace(good, data_pool="dataz"))

    assert "has no pool 'dataz' ([nova_rbd] data_pool)" in line


def test_pool_that_is_not_prepared(ceph, good):
    _command(ceph, "osd pool create", pool="bare", pg_num=8)

    line = _refusal(dataclasses.replace(good, pool="bare"))

    assert "run `rbd pool init bare`" in line


def test_erasure_coded_pool_without_a_replicated_one(good):
    line = _refusal(dataclasses.replace(good, pool="vms-data", data_pool=None))

    assert "'vms-data' is erasure-coded" in line
    assert "[nova_rbd] data_pool to 'vms-data'" in line


def test_user_that_may_only_look(ceph, good):
    user = _user_with(
        ceph, "looker", mon="profile rbd", osd="profile rbd-read-only"
    )

    line = _refusal(dataclasses.replace(good, user=user))

    assert "client.looker may not make and delete disks in pool 'vms'" in line
    assert "etc/ceph/client.nova.keyring" in line


def test_user_without_rights_in_the_data_pool(ceph, good):
    user = _user_with(
        ceph, "half", mon="profile rbd", osd="profile rbd pool=vms"
    )

    line = _refusal(dataclasses.replace(good, user=user))

    assert "with data in 'vms-data'" in line


def test_user_that_may_not_blocklist(ceph, good):
    user = _user_with(
        ceph, "gentle", mon="allow r", osd="profile rbd pool=vms"
    )

    line = _refusal(dataclasses.replace(good, user=user, data_pool=None))

    assert "client.gentle may not put a dead client on the blocklist" in line


def test_user_left_out(good):
    line = _refusal(dataclasses.replace(good, user=None, secret_uuid=None))

    assert "rbd_user is not set" in line


def _secret_refusal(secrets, settings):
    with pytest.raises(errors.ConfigError) as caught:
        secret.check(secrets, settings)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_secret_with_the_key(ceph, secrets, good, define):
    define(base64.b64decode(ceph.key("nova")))

    secret.check(secrets, good)


def test_no_secret_wanted(secrets, good):
    secret.check(secrets, dataclasses.replace(good, secret_uuid=None))


def test_secret_missing(secrets, good):
    line = _secret_refusal(secrets, good)

    assert f"libvirt has no secret {good.secret_uuid}" in line


def test_secret_without_a_value(secrets, good, define):
    define()

    assert "has no value" in _secret_refusal(secrets, good)


def test_secret_with_another_key(secrets, good, define):
    key = ceph_users.new_key()
    define(base64.b64decode(key))

    line = _secret_refusal(secrets, good)

    assert "holds another key than that of client.nova" in line
    assert key not in line


def test_secret_with_text_not_decoded(ceph, secrets, good, define, capfd):
    key = ceph.key("nova")
    define(key.encode())

    line = _secret_refusal(secrets, good)

    assert "the text of a Ceph key, not decoded" in line
    assert "without --plain" in line
    assert key not in line + "".join(capfd.readouterr())


def test_secret_with_something_else(secrets, good, define, capfd):
    define(b"swordfish")

    line = _secret_refusal(secrets, good)

    assert "holds no Ceph key" in line
    assert "swordfish" not in line + "".join(capfd.readouterr())


DEFINE = """
import sys
import libvirt
libvirt.virEventRegisterDefaultImpl()
secrets = libvirt.open(sys.argv[1])
secrets.secretDefineXML(sys.argv[2]).setValue(sys.stdin.buffer.read())
"""

# An embedded driver wants an event loop, which a libvirtd does not.
TOOL = """
import sys
import libvirt
from nova_rbd_backend.cmd import check
libvirt.virEventRegisterDefaultImpl()
sys.exit(check.main(sys.argv[1:]))
"""


@pytest.fixture
def tool(ceph, secret_uuid, tmp_path):
    """Return a function: run nova-rbd-check with changes to nova.conf.

    In processes of their own, as one process holds one embedded driver.
    """
    uri = f"secret:///embed?root={tmp_path}/libvirt"

    def tool(key=None, **changes):
        if key is not None:
            _run(
                ["-c", DEFINE, uri, _secret_xml(secret_uuid)],
                input=base64.b64decode(key),
            ).check_returncode()
        lines = {
            "compute_driver": options.COMPUTE_DRIVER,
            "libvirt_images_type": "rbd",
            "libvirt_images_store": "vms",
            "rbd_user": "nova",
            "rbd_secret_uuid": secret_uuid,
        } | changes
        text = "\n".join(f"{name} = {value}" for name, value in lines.items())
        path = tmp_path / "nova.conf"
        path.write_text(
            f"[DEFAULT]\n{text}\n[libvirt]\n"
            f"images_rbd_ceph_conf = {ceph.conf}\nconnection_uri = {uri}\n"
        )
        done = _run(["-c", TOOL, "--config-file", str(path)])
        return done.returncode, done.stdout.decode().splitlines()

    return tool


def _run(arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        timeout=60,
        check=False,
        **options,
    )


def test_tool_passes(ceph, tool):
    code, rows = tool(key=ceph.key("nova"))

    assert [row.split()[0] for row in rows] == ["passed"] * 7
    assert rows[-1] == "passed  libvirt secret"
    assert code == 0


@pytest.mark.parametrize(
    ("changes", "row"),
    [
        ({"libvirt_images_type": "ceph"}, "FAILED  options: "),
        ({"compute_driver": "libvirt.LibvirtDriver"}, "FAILED  compute_dri"),
        ({"libvirt_images_store": "vmz"}, "FAILED  Ceph cluster"),
        ({}, "FAILED  libvirt secret: libvirt has no secret"),
    ],
)
def test_tool_says_what_failed(tool, changes, row):
    code, rows = tool(**changes)

    assert rows[-1].startswith(row)
    assert code == 1


def test_tool_has_nothing_to_ask_for_other_types(tmp_path, capsys):
    path = tmp_path / "nova.conf"
    path.write_text(
        "[DEFAULT]\nlibvirt_images_type = qcow2\n"
        f"compute_driver = {options.COMPUTE_DRIVER}\n"
    )

    assert check.main(["--config-file", str(path)]) == 0

    assert "Ceph" not in capsys.readouterr().out
