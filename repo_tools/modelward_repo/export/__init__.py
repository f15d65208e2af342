"""Bundles for devices that no network reaches: chosen, and written to a stick."""
