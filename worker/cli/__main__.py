"""`python -m worker.cli`: how `serve` starts its children."""

from worker.cli.app import main

if __name__ == "__main__":
    main()
