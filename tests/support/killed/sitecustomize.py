# SPDX-License-Identifier: Apache-2.0

"""Makes nova-compute kill itself before a given change to the cluster.

Python imports this module when it starts if PYTHONPATH has this folder; the
checkout has to be in PYTHONPATH too. The environment variable NOVA_RBD_KILL
names a file with the number of the change.
"""

import os
import pathlib

from tests.support import dying

dying.hook(
    dying.CountdownFile(pathlib.Path(os.environ["NOVA_RBD_KILL"])),
    dying.changes(),
    before=True,
)
