"""`python -m flowcoro`."""

from flowcoro.cli import main

if __name__ == "__main__":
    main()
