"""`python -m harness` is `dsr`."""

from harness.cli.stages import main

if __name__ == "__main__":
    main()
