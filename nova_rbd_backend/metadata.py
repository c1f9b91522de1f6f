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

"""What each disk says of itself on the cluster: whose it is, made from what.

``rbd image-meta list POOL/DISK`` shows it to an operator without Nova.
"""

import importlib.metadata

from nova_rbd_backend import names

PREFIX = "nova."


def describe(
    disk: names.DiskName | None,
    project_id: str | None = None,
    image_id: str | None = None,
) -> dict[str, str]:
    """The image's metadata; what isn't known is left out."""
    known = {
        "instance": disk.instance_uuid if disk else None,
        "disk": disk.disk if disk else None,
        "project": project_id,
        "base_image": image_id,
        "backend": "nova_rbd_backend "
        + importlib.metadata.version("nova-rbd-backend"),
    }
    return {PREFIX + key: value for key, value in known.items() if value}
