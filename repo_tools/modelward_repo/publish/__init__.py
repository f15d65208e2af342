"""Making releases and channels public, so that a reader always sees a consistent repository."""
