"""What devices report: who they are, what they said, and what somebody must look at.

For people. Nothing here is served, and nothing that a publisher or a device does depends on it.
"""
