"""A pytest plugin for irons and for authors of its plugins (`-p irons.testing`)."""

from __future__ import annotations
