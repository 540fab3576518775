"""Samples and references that others made: their doors, and the subject that scores are of. They come in any size; none is held whole."""
