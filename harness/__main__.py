"""`python -m harness` is `dsr`."""

from harness.cli.main import main

if __name__ == "__main__":
    main()
