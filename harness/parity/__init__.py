"""Does this code compute what the originals' code does? Their recorded weights, inputs and outputs against ours: `dsr parity`."""
