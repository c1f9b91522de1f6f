# SPDX-License-Identifier: Apache-2.0

"""The options, read by oslo.config itself from an operator's files."""

import subprocess
import sys

import pytest
from oslo_config import cfg

from nova_rbd_backend import conf as conf_
from nova_rbd_backend.image_options import ImageOptions
from nova_rbd_backend.settings import Settings
from tests.unit.conftest import RBD, SECRET_UUID


def test_generic_flags_reach_novas_group(parse):
    conf = parse(
        f"""{RBD}
rbd_user = nova
rbd_secret_uuid = {SECRET_UUID}
[libvirt]
images_rbd_ceph_conf = /etc/ceph/other.conf
rbd_connect_timeout = 7
[nova_rbd]
data_pool = vms-data
trash_retention_seconds = 3600
"""
    )

    settings = conf_.apply(conf)

    assert settings == Settings(
        images_type="rbd",
        pool="vms",
        snapshot_pool="vms",
        image_options=ImageOptions(data_pool="vms-data"),
        user="nova",
        secret_uuid=SECRET_UUID,
        ceph_conf="/etc/ceph/other.conf",
        connect_timeout_seconds=7,
        operation_timeout_seconds=60,
        trash_retention_seconds=3600,
        blocklist_seconds=7 * 24 * 3600,
        import_workers=16,
        detach_at_once=2,
        clone_depth_soft_limit=4,
        clone_depth_hard_limit=8,
        import_at_once=2,
    )
    assert conf.libvirt.images_type == "rbd"
    assert conf.libvirt.images_rbd_pool == "vms"
    assert conf.libvirt.rbd_user == "nova"
    assert conf.libvirt.rbd_secret_uuid == SECRET_UUID


def test_without_options_nova_stays_as_it_is(parse):
    conf = parse("")

    settings = conf_.apply(conf)

    assert not settings.uses_rbd
    assert settings.images_type == "default"
    assert settings.pool == ""
    location = conf.get_location("images_type", "libvirt").location
    assert location is cfg.Locations.opt_default


def test_novas_own_options_alone_choose_rbd(parse):
    settings = conf_.apply(
        parse("[libvirt]\nimages_type = rbd\nimages_rbd_pool = rbd\n")
    )

    assert settings.uses_rbd
    assert settings.pool == "rbd"


def test_generic_store_with_novas_images_type(parse):
    settings = conf_.apply(
        parse(
            "[DEFAULT]\nlibvirt_images_store = vms\n"
            "[libvirt]\nimages_type = rbd\n"
        )
    )

    assert settings.pool == "vms"


@pytest.mark.parametrize(
    "images_type", ["raw", "flat", "qcow2", "ploop", "default"]
)
def test_other_types_pass_through(parse, images_type):
    conf = parse(f"[DEFAULT]\nlibvirt_images_type = {images_type}\n")

    assert not conf_.apply(conf).uses_rbd
    assert conf.libvirt.images_type == images_type


@pytest.mark.parametrize(
    "name", ["libvirt_images_store", "libvirt_images_volume_group"]
)
def test_lvm_store_is_the_volume_group(parse, name):
    conf = parse(f"[DEFAULT]\nlibvirt_images_type = lvm\n{name} = vg0\n")

    conf_.apply(conf)

    assert conf.libvirt.images_volume_group == "vg0"
    assert conf.libvirt.images_rbd_pool == "rbd"


def test_old_store_name_warns_of_its_deprecation(tmp_path):
    """Has a process of its own, since oslo.config warns once per process."""
    path = tmp_path / "nova.conf"
    path.write_text(
        "[DEFAULT]\nlibvirt_images_type = rbd\n"
        "libvirt_images_volume_group = vms\n"
    )
    program = (
        "import sys; from oslo_config import cfg\n"
        "from nova_rbd_backend import conf as options\n"
        "options.register_nova_options(cfg.CONF)\n"
        "cfg.CONF([], default_config_files=sys.argv[1:])\n"
        "print(options.apply(cfg.CONF).pool)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, path],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert done.stdout.strip() == "vms"
    assert 'Option "libvirt_images_volume_group"' in done.stderr
    assert "is now called libvirt_images_store" in done.stderr


def test_equal_values_are_no_conflict(parse):
    settings = conf_.apply(
        parse(
            f"""{RBD}libvirt_images_volume_group = vms
rbd_user = nova
rbd_secret_uuid = {SECRET_UUID}
[libvirt]
images_type = rbd
images_rbd_pool = vms
rbd_user = nova
rbd_secret_uuid = {SECRET_UUID}
"""
        )
    )

    assert settings.pool == "vms"


def test_second_call_returns_equal_settings(parse):
    conf = parse(RBD)

    assert conf_.apply(conf) == conf_.apply(conf)


def test_mapping_outlives_a_reload(parse):
    conf = parse(RBD)
    conf_.apply(conf)

    conf.reload_config_files()
    conf.mutate_config_files()

    assert conf.libvirt.images_type == "rbd"
    assert conf.libvirt.images_rbd_pool == "vms"


def test_later_file_wins_as_in_nova(parse):
    """Debian reads nova.conf, then nova-compute.conf."""
    settings = conf_.apply(
        parse(RBD, "[DEFAULT]\nlibvirt_images_store = fast\n")
    )

    assert settings.pool == "fast"


def test_snapshots_go_to_a_pool_of_their_own(parse):
    settings = conf_.apply(
        parse(
            "[DEFAULT]\nlibvirt_images_type = rbd\n"
            "libvirt_images_store = vms\n"
            "libvirt_images_snapshot_store = snapshots\n"
        )
    )

    assert (settings.pool, settings.snapshot_pool) == ("vms", "snapshots")


def test_user_without_secret_is_accepted_without_rbd(parse):
    """Nova uses rbd_user for Cinder volumes, whatever the images_type."""
    conf = parse("[DEFAULT]\nrbd_user = nova\n")

    conf_.apply(conf)

    assert conf.libvirt.rbd_user == "nova"


def test_flags_given(parse):
    given = conf_.generic_flags_given

    assert given(parse("[libvirt]\nimages_type = rbd\n")) == []
    assert given(parse(RBD)) == ["libvirt_images_type", "libvirt_images_store"]
    assert given(parse("[DEFAULT]\nlibvirt_images_type = ceph\n")) == [
        "libvirt_images_type"
    ]


def test_option_in_the_environment_counts_as_given(parse, monkeypatch):
    monkeypatch.setenv("OS_DEFAULT__LIBVIRT_IMAGES_TYPE", "rbd")
    conf = parse("")

    assert conf_.generic_flags_given(conf) == ["libvirt_images_type"]


def test_summary_has_the_effective_values(parse):
    summary = conf_.apply(parse(RBD)).summary()

    assert "images_type=rbd" in summary
    assert "pool=vms" in summary
