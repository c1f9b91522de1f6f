# SPDX-License-Identifier: Apache-2.0

"""Which programs work on a file, those of other processes included."""

import psutil


def of_file(path):
    """Return the pids of the programs that have the file as an argument."""
    found = psutil.process_iter(["pid", "cmdline"])
    return [
        each.info["pid"]
        for each in found
        if str(path) in (each.info["cmdline"] or ())
    ]
