"""Who may sign what: keys, roles, the trust policy they are declared in."""
