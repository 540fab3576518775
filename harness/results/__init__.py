"""What a result is: the schema of a row, and the registry of scores."""
