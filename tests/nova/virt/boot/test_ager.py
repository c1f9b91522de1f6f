# SPDX-License-Identifier: Apache-2.0

"""What the ager logs; what fails is left to the next period."""

import logging
import uuid

import pytest

from tests.nova.conftest import configure

MIB = 1 << 20


@pytest.fixture
def make_base(pools, new_compute, monkeypatch, tmp_path):
    """Return a function that makes a base that is to be removed."""
    from nova_rbd_backend import names
    from nova_rbd_backend.storage.bases import age
    from nova_rbd_backend.storage.bases import make as bases
    from nova_rbd_backend.virt.background import worker

    monkeypatch.setattr(worker.Background, "start", lambda self: None)
    # It is this host's turn, whatever test ran before.
    monkeypatch.setattr(age, "_TURN", uuid.uuid4().hex)
    pools.conf(
        group="image_cache", remove_unused_original_minimum_age_seconds=-1
    )
    path = tmp_path / "raw"
    path.write_bytes(b"image".ljust(MIB))

    def make(pool):
        name = names.base_image(str(uuid.uuid4()), "")
        bases.finish(pool, bases.begin(pool, name), str(path), {})
        return name

    return make


def _errors(caplog):
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.ERROR
    ]


def test_unused_base_is_removed(pools, make_base, caplog):
    from nova_rbd_backend.virt.boot import ager

    base = make_base(pools.vms)
    caplog.set_level(logging.INFO)
    assert ager._age_once()
    assert not pools.vms.directory.exists(base)
    assert f"Removed unused bases from pool vms: {base};" in caplog.text
    assert _errors(caplog) == []


def test_failure_in_one_pool_stops_no_other(pools, make_base, caplog):
    from nova_rbd_backend.virt.boot import ager

    configure(pools.conf, gone="no-such-pool", fast="snapshots")
    last = pools.vms.beside("snapshots")
    base = make_base(last)
    assert ager._age_once()
    assert not last.directory.exists(base)
    (error,) = _errors(caplog)
    assert error.startswith("Unused bases of pool no-such-pool were not aged:")


def test_ageing_without_ceph_is_left_to_the_next_period(
    pools, new_compute, tmp_path, caplog
):
    from nova_rbd_backend.virt.boot import ager

    deaf = tmp_path / "deaf.conf"
    deaf.write_text("[global]\nmon_host = v1:127.0.0.1:1\n")
    pools.conf(group="libvirt", images_rbd_ceph_conf=str(deaf))
    pools.conf(group="libvirt", rbd_connect_timeout=1)
    assert ager._age_once()
    (error,) = _errors(caplog)
    assert error.startswith("Unused bases were not aged: ")


def test_turn_of_another_host_ends_no_state(
    pools, make_base, monkeypatch, caplog
):
    from nova_rbd_backend import errors
    from nova_rbd_backend.storage.bases import age
    from nova_rbd_backend.virt.boot import ager

    base = make_base(pools.vms)

    def fail(_pool, name, **_how):
        raise errors.HasSnaps(operation="discard", image=name)

    with monkeypatch.context() as patch:
        patch.setattr(age.discard, "discard", fail)
        for turn in ("ours", None, "ours again"):
            if turn is not None:
                patch.setattr(age, "_TURN", f"{turn} {base}")
            ager._age_once()
    told = [r for r in caplog.records if base in r.getMessage()]
    assert len(told) == 1
    age.discard.discard(pools.vms, base)
