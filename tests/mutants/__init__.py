# SPDX-License-Identifier: Apache-2.0

"""Put faults into the product, one by one, and see which no test notices.

tools/mutants.sh runs this; doc/source/developing.rst says how. mutmut 3 can't
be used: it leaves out decorated functions, and with them every context manager
of the flows, and child processes of tests don't run its mutants. cosmic-ray
runs one command for all mutants, and so can't choose the tests of a line.
"""
