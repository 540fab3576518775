"""`python -m harness` is `dsr`."""

from harness.cli import main

if __name__ == "__main__":
    main()
