# SPDX-License-Identifier: Apache-2.0

import time


class FakeObjects:
    def __init__(self, state):
        self._omaps = state.omaps
        self._leases = state.leases

    def omap_get(self, key, prefix):
        found = self._omaps.get(key, {})
        return {k: v for k, v in found.items() if k.startswith(prefix)}

    def omap_value(self, key, name):
        return self._omaps.get(key, {}).get(name)

    def omap_swap(self, key, name, old, new, frees=False):
        found = self._omaps.setdefault(key, {})
        if found.get(name, b"") != (old or "").encode():
            return False
        if new is None:
            found.pop(name, None)
        else:
            found[name] = new.encode()
        return True

    def lease(self, key, name, cookie, seconds, holder, connection=None):
        held, until = self._leases.get((key, name), (cookie, 0.0))
        if held != cookie and until > time.monotonic():
            return False
        self._leases[key, name] = (cookie, time.monotonic() + seconds)
        return True

    def end_lease(self, key, name, cookie, connection=None):
        held, until = self._leases.get((key, name), ("", 0.0))
        if held != cookie or until <= time.monotonic():
            return False
        del self._leases[key, name]
        return True

    def leases(self, key):
        return [name for at, name in self._leases if at == key]
