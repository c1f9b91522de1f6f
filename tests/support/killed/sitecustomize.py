# SPDX-License-Identifier: Apache-2.0

"""Makes a nova-compute kill itself before a given change to the cluster.

Python imports it at start where PYTHONPATH has this folder, and the checkout.
The file that NOVA_RBD_KILL names has the number of changes until then.
"""

import os
import pathlib

from tests.support import dying

dying.hook(
    dying.CountdownFile(pathlib.Path(os.environ["NOVA_RBD_KILL"])),
    dying.changes(),
    before=True,
)
