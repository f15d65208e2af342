"""modelward-repo: what the security team, CI and operators run. See docs/ for their guides."""

__version__ = "0.1.0"
