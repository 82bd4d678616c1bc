"""`make ablation ARGS="DATA …"`: the table of each data folder, and what it says of the network."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from benchmarks.ablation.parts import WHOLE, parts
from benchmarks.ablation.study import Study, Terms
from benchmarks.ablation.verdict import Rows, sentence, table
from pipeline.adapters.files import DataError
from pipeline.bundle import BundleError
from pipeline.console import Stages, err, out, sentences

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def ablation(
    data: Annotated[list[Path], typer.Argument(metavar="DATA…", help="Folders of labels.json, test/ and train/.")],
    budget: Annotated[str, typer.Option(help="False alarms that are bearable.")] = "1/10000/sensor",
    fraction: Annotated[float | None, typer.Option(help="History: the first part of each file.")] = None,
    max_rows: Annotated[int | None, typer.Option(help="History: at most so many rows of each file.")] = None,
    nab: Annotated[bool, typer.Option(help="Also the score of the Numenta Anomaly Benchmark.")] = False,
    vus: Annotated[bool, typer.Option(help="Also VUS-PR, which takes long.")] = True,
    head: Annotated[int | None, typer.Option(help="Rows at each start that are known to be normal.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Rows whose names hold this; may be given again.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every figure here.")] = None,
    model: Annotated[Path | None, typer.Option(help="Models of this very history, instead of training.")] = None,
) -> None:
    """What each part of the detector is worth on labelled data; to a file or a pipe, the tables are Markdown."""
    failures = (DataError, BundleError, OSError)
    found: dict[str, Any] = {}
    with sentences(*failures, wrong=(ValueError,)), threadpool_limits(limits=1, user_api="blas"), Stages() as stages:
        terms = Terms(budget, fraction, max_rows, vus, nab, head)
        err.print(machine(), style="dim")
        for folder in data:
            study = Study(folder, terms, stages, model)
            rows = measured(study, only)
            out.print(table(f"{study.name}, {budget}", rows, markdown=not out.is_terminal))
            out.print(sentence(rows), markup=False, soft_wrap=True)
            found[study.name] = as_json(rows)
            if json_file is not None:  # after each, for a folder may take an hour
                told = {"machine": machine(), "at": datetime.now(UTC).isoformat(timespec="seconds"), "data": found}
                json_file.write_text(json.dumps(told, indent=1), encoding="utf-8")


def measured(study: Study, only: list[str] | None = None) -> Rows:
    """The whole detector, and every part whose name holds one of the words `only`; ValueError where none does."""
    every = list(parts(study.models, study.unseen))
    asked = [p for p in every if only is None or any(word.lower() in p.name.lower() for word in only)]
    if not asked:
        raise ValueError(f"no row is called {' or '.join(only or ())}; there are {', '.join(p.name for p in every)}")
    return Rows(
        whole=study.figures(WHOLE),
        parts={part.name: study.figures(part) for part in asked if part.control is None},
        network="/".join(sorted({model.network.cell.upper() for model in study.models})),
        controls={part.name: study.figures(part) for part in asked if part.control is not None},
    )


def as_json(rows: Rows) -> dict[str, Any]:
    """Every figure of every row, and the sentence."""
    named = {WHOLE.name: rows.whole, **rows.parts, **rows.controls}
    return {"rows": {name: json.loads(figures.as_json()) for name, figures in named.items()}, "says": sentence(rows)}


def machine() -> str:
    """What the figures were taken on."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


if __name__ == "__main__":
    app()
