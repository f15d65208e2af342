"""Deciding: bytes in, verdict out. No network, no clock of its own, no lasting writes.

`repository` is the one room that drives something: a fetcher and TUF's cache directory, both
handed in.
"""
