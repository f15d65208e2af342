"""`modelward run`: looks for updates for as long as the machine runs.

The resident process (`loop`) opens no connection and parses nothing from outside: it waits, and
has each check made by a child (`worker`, `attempt`) that ends with the check (docs/adr/0018).
"""
