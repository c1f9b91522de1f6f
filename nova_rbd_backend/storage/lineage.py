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

"""How many parents an image has, one above the other.

Each makes reading what the guest never wrote slower, and opening too. A
snapshot of a disk booted from a snapshot of a disk ... is detached in the
background; where that comes late the chain may not grow without end.
"""

from nova_rbd_backend import errors
from nova_rbd_backend.storage.pool import Pool

# No chain of ours is so long; a broken one might be endless.
_MOST = 64


def depth(pool: Pool, image_id: str) -> int:
    """Count the parents above an image; 0: it has none.

    What the user may not read is not counted, nor what is above that.
    """
    count = 0
    at, current = pool, image_id
    while count < _MOST:
        try:
            parent = at.parent_of(current)
        except (errors.NotPermitted, errors.NotFound):
            break
        if parent is None:
            break
        at, current = parent
        count += 1
    return count
