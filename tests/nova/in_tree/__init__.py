# SPDX-License-Identifier: Apache-2.0

"""Nova's own tests, with this backend in the place of Nova's.

``python -m tests.nova.in_tree unit`` runs them for the Nova that is installed.
"""
