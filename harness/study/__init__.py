"""Studies and methods, typed. Imports nothing of the harness."""
