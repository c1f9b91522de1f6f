# SPDX-License-Identifier: Apache-2.0

"""Sphinx for the release notes."""

extensions = ["openstackdocstheme", "reno.sphinxext"]
project = "nova-rbd-backend Release Notes"
copyright = "the nova-rbd-backend authors"
root_doc = "index"
html_theme = "openstackdocs"
openstackdocs_auto_name = False
openstackdocs_auto_version = False
openstackdocs_use_storyboard = False
version = release = ""
