"""Files that stages hand to one another: written atomically, with hashes and provenance."""
