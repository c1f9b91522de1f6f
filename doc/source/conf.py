# SPDX-License-Identifier: Apache-2.0

"""Sphinx for the documentation."""

extensions = ["openstackdocstheme", "oslo_config.sphinxext"]
project = "nova-rbd-backend"
copyright = "the nova-rbd-backend authors"
root_doc = "index"
html_theme = "openstackdocs"
openstackdocs_auto_name = False
openstackdocs_auto_version = False
version = release = ""
