"""How a model was made: layouts compiled from reviewable source, steps attested."""
