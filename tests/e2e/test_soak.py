# SPDX-License-Identifier: Apache-2.0

"""Two minutes of tools/soak.sh, with the same plan in each run."""

from collections.abc import Iterator

import pytest

from tests.conftest import Tell
from tests.e2e.conftest import NAME, Images, remove_folders
from tests.soak.soak import PERIODS, Soak
from tests.testbed import conf_file, paths
from tests.testbed.host.compute_host import ComputeHost
from tests.testbed.openstack.servers import Servers
from tests.testbed.whole import Testbed

SEED, SECONDS = 14, 120

# The end waits for all that was begun or broken, each with a limit.
pytestmark = pytest.mark.timeout(1500)


@pytest.fixture
def short_periods(stack: Testbed) -> Iterator[None]:
    """Shorten periods, also for nova-computes that start meanwhile."""
    before = stack.overrides
    stack.overrides = conf_file.merged(before, PERIODS)
    stack.restart_computes()
    yield
    stack.overrides = before
    stack.restart_computes()


def test_two_minutes(
    stack: Testbed,
    short_periods: None,
    images: Images,
    servers: Servers,
    other_host: ComputeHost,
    tell: Tell,
) -> None:
    log = paths.cache() / "soak" / f"{NAME}.log"
    sources = images.raw.id, images.qcow2.id
    soak = Soak(stack, SEED, SECONDS, sources, log)
    soak.run()
    # It has judged them.
    remove_folders(stack)
    tell(soak.report().replace("\n", "\n    "))
    assert soak.journey.violations == [], soak.report()
