"""Models of the CLIP score."""
