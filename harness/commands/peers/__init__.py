"""`dsr benchmark --peers`: this harness beside what others use for the same work, in one run, alternating; both must give the same."""

import harness.machine.device  # noqa: F401  # makes torchvision importable, before clean-fid wants it
