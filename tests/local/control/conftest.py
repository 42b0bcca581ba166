"""Fixtures of the control plane's tests."""

from __future__ import annotations

from tests.local.control.gateway_logs import logs

__all__ = ["logs"]
