"""Questions to a running service."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Annotated, Any

import typer

from pipeline.console import FAILED, err

Url = Annotated[str, typer.Option("--url", help="Where the service answers.")]
DEFAULT_URL = "http://127.0.0.1:9108"


def ask(url: str, path: str) -> Any:
    """What the service answers at `url`; a sentence and the end of the command where it does not."""
    try:
        with urllib.request.urlopen(url + path, timeout=5) as answer:  # noqa: S310 - the operator's own URL
            return json.load(answer)
    except urllib.error.HTTPError as error:
        err.print(f"{url}{path}: {error.read(500).decode(errors='replace')}", style="red", markup=False)
    except (OSError, HTTPException, ValueError) as error:
        err.print(f"{url} does not answer: {error}; is the service running? give --url", style="red", markup=False)
    raise typer.Exit(FAILED)
