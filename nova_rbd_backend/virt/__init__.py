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

"""The Nova edge; what Nova loads as ``nova.virt.rbd_backend``.

Nova is imported when Nova asks for the driver and not before: the guard lives
here too, and is imported by every user of os_vif on the host.
"""

import importlib
import typing


def __getattr__(name: str) -> typing.Any:
    if name == "LibvirtDriver":
        # By full name: this folder is also installed as nova.virt.rbd_backend
        # and a relative import would make a second copy of every class.
        startup = importlib.import_module("nova_rbd_backend.virt.startup")
        return startup.driver_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
