# SPDX-License-Identifier: Apache-2.0

"""A pool in memory, composed as Pool is; this suite keeps it faithful.

`state` has what the cluster stores. Each other module replaces the module of
nova_rbd_backend.ceph with the same name.
"""
