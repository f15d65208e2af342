"""Fixtures: the fleet of the runbooks."""

from tests.runbooks.conftest import commands, template

__all__ = ["commands", "template"]
