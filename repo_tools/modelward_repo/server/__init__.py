"""Serving a repository over HTTP. Nothing here is trusted by any device."""
