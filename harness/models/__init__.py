"""Models. torchvision must be made importable before transformers and open_clip look for it."""

import harness.runtime  # noqa: F401
