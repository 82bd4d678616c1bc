"""`python -m pipeline.cli`: the `foreshock` command, where there is no script of it."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
