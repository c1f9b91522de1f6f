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

"""What native threads leave to be logged, since they may not log."""

from oslo_log import log as logging

from nova_rbd_backend.storage import fencing, striping

LOG = logging.getLogger(__name__)


def tell() -> None:
    """Log what storage has found out since the last time."""
    _tell_fenced()
    _tell_coarser()


def _tell_fenced() -> None:
    while fencing.untold:
        fact = fencing.untold.popleft()
        LOG.warning(
            "Fenced a dead client of %(pool)s/%(image)s: client.%(id)d at "
            "%(address)s cannot write for %(days).1f days%(lock)s",
            {
                "pool": fact.pool,
                "image": fact.image,
                "id": fact.client_id,
                "address": fact.address,
                "days": fact.blocklist_seconds / 86400,
                "lock": ", its lock is broken" if fact.lock_broken else "",
            },
        )


def _tell_coarser() -> None:
    while striping.untold:
        fact = striping.untold.popleft()
        LOG.info(
            "Clones in %(pool)s of images in %(parent_pool)s with %(parent)s "
            "get %(given)s: [%(group)s] asks for %(wanted)s, but a clone is "
            "never striped finer than its parent",
            vars(fact),
        )
