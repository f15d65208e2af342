"""`modelward serve`: hands neighbours what this device has, and compares logs with them.

Read-only, and trusted by nobody: whoever takes anything from here verifies it as if it came from
the repository's server.
"""
