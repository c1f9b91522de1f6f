# SPDX-License-Identifier: Apache-2.0

"""What oslo.log makes of lines written while Nova handles an exception."""

import io
import logging

import pytest

from nova_rbd_backend import notices

FENCED = notices.Fenced("vms", "1_disk", 7, "10.0.0.1:0/2", True, 86400)


@pytest.fixture
def log(nova_conf, monkeypatch):
    """What nova-compute has in its log, once it has loaded our driver."""
    from oslo_config import cfg
    from oslo_log import formatters
    from oslo_log import log as oslo_logging

    from nova_rbd_backend.virt import logs

    ours = logging.getLogger("nova_rbd_backend")
    monkeypatch.setattr(ours, "propagate", True)
    monkeypatch.setattr(ours, "handlers", [])
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    conf = cfg.ConfigOpts()
    oslo_logging.register_options(conf)
    conf([], default_config_files=[], default_config_dirs=[])
    for context in ("context", "default"):
        conf.set_override(f"logging_{context}_format_string", "%(message)s")
    handler.setFormatter(formatters.ContextFormatter(config=conf))
    logging.getLogger().addHandler(handler)
    logs.stand_alone()
    logs.stand_alone()
    yield written
    logging.getLogger().removeHandler(handler)


def fence():
    from nova_rbd_backend.virt import edge

    edge.run(lambda: notices.note(FENCED))


def test_exception_of_nova_is_not_in_our_line(log):
    """Nova falls back to another way when direct_snapshot() has none."""
    try:
        raise NotImplementedError("direct_snapshot")
    except NotImplementedError:
        fence()
        logging.getLogger("nova.compute").warning("Nova's own line")
    ours, novas = log.getvalue().splitlines()
    assert ours.endswith(", its lock is broken")
    assert novas == "Nova's own line: NotImplementedError: direct_snapshot"


def test_exception_that_is_given_stays(log):
    try:
        raise RuntimeError("why")
    except RuntimeError:
        logging.getLogger("nova_rbd_backend.virt").exception("It failed")
    first, *traceback = log.getvalue().splitlines()
    assert first == "It failed: RuntimeError: why"
    assert traceback


def test_handlers_of_the_operator_stay(log):
    from nova_rbd_backend.virt import logs

    ours = logging.getLogger("nova_rbd_backend")
    ours.handlers, ours.propagate = [logging.NullHandler()], True
    (own,) = ours.handlers
    logs.stand_alone()
    assert ours.handlers == [own]
    assert ours.propagate
