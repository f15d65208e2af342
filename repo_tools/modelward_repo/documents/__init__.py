"""Documents as people read them, and what merely reading one does not prove."""
