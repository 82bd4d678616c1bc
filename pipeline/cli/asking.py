"""Questions to a running service."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Annotated, Any

import typer
from rich.table import Table

from pipeline.console import FAILED, err, out

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


def alerts(
    url: Url = DEFAULT_URL,
    _open: Annotated[bool, typer.Option("--open", help="As without it.", show_default=False)] = True,
) -> None:
    """What is wrong now: the open alerts of a running service. Those that are over are in the topic of the alerts."""
    table = Table("since", "sensor", "channel", "kind", "severity", "score or measure", "threshold or limit", box=None)
    for a in ask(url, "/alerts"):
        measured = a["score"] if a["score"] is not None else a["measure"]
        limit = a["threshold"] if a["threshold"] is not None else a["limit"]
        figures = (f"{x:.4g}" if x is not None else "" for x in (measured, limit))
        table.add_row(_when(a["start"]), a["sensor"], a["channel"], a["kind"], a["severity"], *figures)
    out.print(table if table.row_count else "no alert is open")


def _when(milliseconds: float) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")
