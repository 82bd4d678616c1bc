"""`python -m pipeline.testing POINT[:PASSES[:SECONDS]] run ...`: `foreshock run ...` that is killed or slow there."""

import sys

from pipeline import cli
from pipeline.testing import points

if __name__ == "__main__":
    try:
        points.at(sys.argv.pop(1) if len(sys.argv) > 1 else "")
    except ValueError as why:
        raise SystemExit(f"python -m pipeline.testing POINT[:PASSES[:SECONDS]] run ...: {why}") from None
    cli.main()
