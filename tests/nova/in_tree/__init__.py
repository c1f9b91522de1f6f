# SPDX-License-Identifier: Apache-2.0

"""Nova's own tests, with this backend in Nova's place.

``python -m tests.nova.in_tree unit`` runs them for the Nova of that Python.
"""
