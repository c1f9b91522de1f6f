# SPDX-License-Identifier: Apache-2.0

"""A pool in memory, composed as Pool is; this suite keeps it true.

`state` has what the cluster stores; each other module stands for the module
of nova_rbd_backend.ceph that has its name.
"""
