# SPDX-License-Identifier: Apache-2.0

"""What keeps nova-compute from starting, with real Ceph and libvirt secrets.

Each failure is reported in one line, with the cause and the remedy.
"""

import base64
import contextlib
import dataclasses
import secrets as secrets_
import socket
import struct
import time

import libvirt
import pytest
import rbd

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import cluster
from nova_rbd_backend.checks import ceph as ceph_
from nova_rbd_backend.checks import secret, steps
from nova_rbd_backend.image_options import FEATURES, ImageOptions
from tests.support.checking import (
    doubts,
    probes,
    refusal,
    require,
    secret_xml,
)
from tests.support.clients import (
    blocklist,
    inactive,
    make_user,
    over_its_quota,
)
from tests.support.embedded_secrets import embedded_secrets
from tests.testbed.ceph import pools, users
from tests.testbed.process import wait_for

old_librados = pytest.mark.skipif(
    rbd.RBD().version()[1] >= 20, reason="reads keys of type aes256k"
)


@pytest.fixture(scope="module")
def secrets():
    """libvirt's secret driver in this process."""
    return embedded_secrets()


@pytest.fixture
def define(secrets, secret_uuid):
    """Return a function that defines the secret, with or without a value."""

    def define(value=None):
        found = secrets.secretDefineXML(secret_xml(secret_uuid))
        if value is not None:
            found.setValue(value)

    return define


@pytest.mark.parametrize("data_pool", [None, "vms-data"])
def test_documented_caps_suffice(ceph, good, data_pool):
    require(
        dataclasses.replace(
            good, image_options=ImageOptions(data_pool=data_pool)
        )
    )

    assert probes(ceph, "vms") == []


def test_no_cluster_at_the_address(tmp_path, good):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        path = tmp_path / "ceph.conf"
        path.write_text(
            f"[global]\nmon_host = v2:127.0.0.1:{unused.getsockname()[1]}\n"
            f"keyring = {good.ceph_conf.replace('ceph.conf', '')}"
            "ceph.$name.keyring\n"
        )
        line = refusal(
            dataclasses.replace(
                good, ceph_conf=str(path), connect_timeout_seconds=1
            ),
            errors.ClusterUnreachable,
        )

    assert "monitors" in line


def test_no_conf_file(good):
    line = refusal(
        dataclasses.replace(good, ceph_conf="/nonexistent/ceph.conf"),
        errors.ConfFileNotFound,
    )

    assert "/nonexistent/ceph.conf" in line


def test_no_keyring(good):
    line = refusal(
        dataclasses.replace(good, user="stranger"), errors.StorageError
    )

    assert "keyring" in line


def _long_key():
    """Return a key of type aes256k, as a cluster of Ceph 20 makes it."""
    head = struct.pack("<HIIH", 2, int(time.time()), 0, 32)
    return head + secrets_.token_bytes(32)


@old_librados
def test_key_that_librados_cannot_read(ceph, good, capfd):
    key = base64.b64encode(_long_key()).decode()
    text = f"[client.modern]\n\tkey = {key}\n"
    ceph.keyring("modern").write_text(text)

    line = refusal(
        dataclasses.replace(good, user="modern"), errors.KeyUnreadable
    )

    assert "the key of client.modern is of type 2 (2 is aes256k" in line
    assert "'ceph auth rotate client.USER --key-type aes'" in line
    assert key not in line + "".join(capfd.readouterr())


def test_no_pool(good):
    line = refusal(dataclasses.replace(good, pool="vmz"))

    assert "has no pool 'vmz' (libvirt_images_store)" in line
    assert "rbd pool init" in line


def test_options_for_new_images(ceph, good):
    """All options at once; the trial image is made with them."""
    wanted = ImageOptions(
        data_pool="vms-data",
        object_size_bytes=32 << 20,
        stripe_unit_bytes=512,
        stripe_count=64,
        features=tuple(FEATURES),
        conf=(
            ("rbd_cache", "false"),
            ("rbd_qos_bps_limit", "100M"),
            ("rbd_qos_iops_burst", "2000"),
            ("rbd_qos_iops_limit", "500"),
            ("rbd_read_from_replica_policy", "localize"),
        ),
    )
    wanted.check()

    require(dataclasses.replace(good, image_options=wanted))

    assert probes(ceph, "vms") == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("rbd_qos_iops_limits", "500"),  # no such option
        ("rbd_qos_iops_limit", "many"),
        ("rbd_read_from_replica_policy", "nearest"),
        ("rbd_default_order", "23"),  # an option of clients, not of images
    ],
)
def test_librbd_option_that_images_cannot_have(ceph, good, option, value):
    wanted = ImageOptions(conf=(("rbd_cache", "false"), (option, value)))
    wanted.check()

    line = refusal(dataclasses.replace(good, image_options=wanted))

    assert f"[nova_rbd] image_conf has {option}:{value}, but" in line
    assert "`rbd config image ls vms/DISK`" in line
    assert probes(ceph, "vms") == []


def test_stripes_that_ceph_refuses(ceph, good):
    """Ceph refuses stripes that the check of the options alone accepts."""
    wanted = ImageOptions(stripe_unit_bytes=96 << 10, stripe_count=4)

    line = refusal(dataclasses.replace(good, image_options=wanted))

    assert "[nova_rbd] stripe_unit 98304, stripe_count 4" in line
    assert "correct or remove these" in line
    assert probes(ceph, "vms") == []


def test_no_data_pool(good):
    line = refusal(
        dataclasses.replace(
            good, image_options=ImageOptions(data_pool="dataz")
        )
    )

    assert "has no pool 'dataz' ([nova_rbd] data_pool)" in line


def test_pool_that_is_not_prepared(ceph, good):
    with ceph.admin() as admin:
        pools.command(admin, "osd pool create", pool="bare", pg_num=8)

    line = refusal(dataclasses.replace(good, pool="bare"))

    assert "run `rbd pool init bare`" in line


def test_erasure_coded_pool_without_a_replicated_one(good):
    line = refusal(
        dataclasses.replace(
            good, pool="vms-data", image_options=ImageOptions()
        )
    )

    assert "'vms-data' is erasure-coded" in line
    assert "set libvirt_images_store to a replicated pool" in line
    assert "[nova_rbd] data_pool" in line


def test_user_that_may_only_read(ceph, good):
    user = make_user(
        ceph, "looker", mon="profile rbd", osd="profile rbd-read-only"
    )

    line = refusal(dataclasses.replace(good, user=user))

    assert "client.looker may not make and delete disks in pool 'vms'" in line
    assert "etc/ceph/client.nova.keyring" in line


def test_user_without_rights_in_the_data_pool(ceph, good):
    user = make_user(
        ceph, "half", mon="profile rbd", osd="profile rbd pool=vms"
    )

    line = refusal(dataclasses.replace(good, user=user))

    assert "with data in 'vms-data'" in line


def test_user_without_rights_on_osds(ceph, good):
    """OSDs of Ceph 16 refuse it, and those of Ceph 18 and 20 do not answer."""
    user = make_user(ceph, "osdless", mon="profile rbd")

    line = refusal(
        dataclasses.replace(good, user=user, operation_timeout_seconds=3)
    )

    assert "client.osdless" in line
    assert "etc/ceph/client.nova.keyring" in line


def test_osds_that_leave_the_user_without_an_answer(ceph, good):
    """As those of Ceph 18 and 20 do to a user without rights on OSDs."""
    hasty = dataclasses.replace(good, operation_timeout_seconds=1)
    ceph.pause_osds()
    try:
        line = refusal(hasty)
    finally:
        ceph.resume_osds()

    assert "no answer to client.nova in pool 'vms'" in line
    assert "etc/ceph/client.nova.keyring" in line
    assert "Ceph 18" in line


def test_pool_without_active_pgs(ceph, good):
    """nova-compute starts, for the sake of the other pools."""
    hasty = dataclasses.replace(
        good, pool="images", operation_timeout_seconds=2
    )
    with ceph.admin() as admin, inactive(admin, "images"):

        def is_reported():
            checks = pools.command(admin, "health")["checks"]
            return {"PG_DEGRADED", "PG_AVAILABILITY"} & checks.keys()

        wait_for("the monitor reports it", is_reported, 30)
        steps_ = list(ceph_.steps(hasty))
        (rights,) = [
            each
            for each in steps_
            if each.name == "rights for disks in images"
        ]
        doubt = rights.probe()

    assert "no answer to client.nova in pool 'images'" in doubt
    assert "undersized" in doubt or "degraded" in doubt


def test_other_pool_without_active_pgs(ceph, good):
    """It says nothing of the pools that answer, and leaves nothing there."""
    hasty = dataclasses.replace(good, operation_timeout_seconds=2)
    before = probes(ceph, "vms")
    with ceph.admin() as admin, inactive(admin, "snapshots"):
        doubts = {
            each.name: each.probe()
            for each in ceph_.steps(hasty)
            if each.name != "rights for snapshots in snapshots"
        }
    assert doubts["rights for disks in vms"] is None
    assert set(doubts.values()) == {None}
    assert probes(ceph, "vms") == before


@pytest.mark.parametrize("pool", ["vms", "vms-data", "snapshots"])
def test_full_pool(ceph, good, pool):
    """nova-compute starts, so that servers can be deleted to make room."""
    hasty = dataclasses.replace(good, operation_timeout_seconds=2)
    with ceph.admin() as admin, admin.open_ioctx(pool) as ioctx:
        for name in ("one", "two"):
            ioctx.write_full(name, b"object")
        before = probes(ceph, "vms")
        with over_its_quota(admin, pool):
            doubt, *others = steps.require(ceph_.steps(hasty))

    assert f"pool '{pool}' is full" in doubt
    assert "Servers can be deleted" in doubt
    if pool == "snapshots":
        assert others == []
    else:
        (unsure,) = others
        assert unsure.startswith("not compared, as the rights for disks")
    assert probes(ceph, "vms") == before


def test_default_time_on_the_blocklist(ceph, good):
    """QEMU's librbd lists clients for that time."""
    seconds = 30 * 24 * 3600
    require(good)  # the testbed's default is longer than these settings ask

    (doubt,) = doubts(dataclasses.replace(good, blocklist_seconds=seconds))

    assert "after 691200 s, not 2592000 s (blocklist_seconds)" in doubt
    assert f"mon_osd_blocklist_default_expire {seconds}`" in doubt
    assert blocklist(ceph).keys() == {cluster.NO_CLIENT}


def test_user_that_may_not_blocklist(ceph, good):
    user = make_user(ceph, "gentle", mon="allow r", osd="profile rbd pool=vms")

    line = refusal(
        dataclasses.replace(good, user=user, image_options=ImageOptions())
    )

    assert "client.gentle may not put a dead client on the blocklist" in line


def test_user_is_not_set(good):
    line = refusal(dataclasses.replace(good, user=None, secret_uuid=None))

    assert "rbd_user is not set" in line


def _secret_refusal(secrets, settings):
    with pytest.raises(errors.ConfigError) as caught:
        secret.check(secrets, settings)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_secret_with_the_key(ceph, secrets, good, define):
    define(base64.b64decode(ceph.key("nova")))

    assert secret.check(secrets, good) is None


def test_no_secret_wanted(secrets, good):
    none_wanted = dataclasses.replace(good, secret_uuid=None)

    assert secret.check(secrets, none_wanted) is None


def test_secret_missing(secrets, good):
    line = _secret_refusal(secrets, good)

    assert f"libvirt has no secret {good.secret_uuid}" in line
    assert "virsh secret-define" in line


def test_secret_without_a_value(secrets, good, define):
    define()

    assert "has no value" in _secret_refusal(secrets, good)


def test_secret_with_another_key(secrets, good, define):
    key = users.new_key(users.key_type())
    define(base64.b64decode(key))

    line = _secret_refusal(secrets, good)

    assert "holds another key than that of client.nova" in line
    assert "ceph auth get-key client.nova" in line
    assert key not in line


def test_secret_with_the_text_of_a_key(ceph, secrets, good, define, capfd):
    key = ceph.key("nova")
    define(key.encode())

    line = _secret_refusal(secrets, good)

    assert "the text of a Ceph key, not decoded" in line
    assert "without --plain" in line
    assert key not in line + "".join(capfd.readouterr())


@old_librados
def test_secret_with_a_key_that_librados_cannot_read(
    secrets, good, define, capfd
):
    """It is a key, whatever this host's librados makes of it."""
    key = _long_key()
    define(key)

    with pytest.raises(errors.KeyUnreadable) as caught:
        secret.check(secrets, good)

    text = base64.b64encode(key).decode()
    assert text not in str(caught.value) + "".join(capfd.readouterr())


def test_secret_without_a_ceph_key(secrets, good, define, capfd):
    define(b"swordfish")

    line = _secret_refusal(secrets, good)

    assert "holds no Ceph key" in line
    assert "swordfish" not in line + "".join(capfd.readouterr())


def test_secret_with_more_than_a_key(ceph, secrets, good, define):
    """librados would log in with it, and ignore what follows the key."""
    define(base64.b64decode(ceph.key("nova")) + b"\n")

    assert "holds no Ceph key" in _secret_refusal(secrets, good)


def test_private_secret(ceph, compute_host, good):
    """libvirtd gives its value to no client; nova-compute starts."""
    key = base64.b64decode(ceph.key("nova"))
    with contextlib.closing(libvirt.open(compute_host.libvirt_uri)) as here:
        private = secret_xml(good.secret_uuid, private="yes")
        defined = here.secretDefineXML(private)
        defined.setValue(key)

        doubt = secret.check(here, good)

        defined.undefine()
    assert f"the libvirt secret {good.secret_uuid} is private" in doubt
    assert "the key of client.nova" in doubt


def test_libvirt_without_secrets(good):
    """libvirt's test driver has none, like a libvirtd without its driver."""
    with contextlib.closing(libvirt.open("test:///default")) as connection:
        line = _secret_refusal(connection, good)

    assert f"the libvirt secret {good.secret_uuid} cannot be read" in line
    assert "this function is not supported" in line
