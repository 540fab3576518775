"""Judges: the networks whose features FID, IS, KID, precision and recall use."""
