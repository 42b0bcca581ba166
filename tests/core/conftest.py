"""Fixtures of the tests of the command line."""

from tests.core.sample_config import config

__all__ = ["config"]
