# SPDX-License-Identifier: Apache-2.0

"""A testbed's servers leave those of another testbed alone."""

import pathlib
import tempfile

from tests.testbed.openstack.infra import Infra
from tests.testbed.openstack.site_facts import Site


def test_mariadb_spares_the_tables_of_a_second_one(tmp_path):
    # What mariadb-install-db keeps in the default tmpdir while it works. A
    # server that used that folder would delete it when it starts.
    with tempfile.NamedTemporaryFile(prefix="#sql-", dir="/tmp") as table:
        site = Site.load(tmp_path, tmp_path, tmp_path)
        site.log("mariadb").parent.mkdir()
        try:
            Infra(site).start_mariadb()

            assert pathlib.Path(table.name).exists()
        finally:
            site.process("mariadb").stop(limit_seconds=10)
