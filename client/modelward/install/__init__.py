"""Installing: lasting state, written so that a cut at any moment leaves the old or the new."""
