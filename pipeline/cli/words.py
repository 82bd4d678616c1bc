"""Words that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.console import sentences

if TYPE_CHECKING:
    from pipeline.settings import Settings

Data = Annotated[Path, typer.Argument(metavar="DATA", help="CSV or Parquet, a file or a folder; wide or long.")]
ModelDir = Annotated[Path, typer.Option("--model", help="Folder of model bundles.")]
Config = Annotated[Path | None, typer.Option("--config", help="foreshock.toml; the environment goes on top of it.")]
Join = Annotated[bool, typer.Option("--join", help="Rows that name a part of a sensor's channels are joined.")]
Tag = Annotated[
    str | None, typer.Option(metavar="PATTERN", help="Names that are one channel of a sensor, as model.tag; joins.")
]
BudgetText = Annotated[str, typer.Option("--budget", help="False alarms that are bearable, e.g. 1/week/sensor.")]


def settings_of(config: Path | None) -> Settings:
    """The settings; a mistake in them ends the command."""
    from pipeline.settings import SettingsError, load

    with sentences(wrong=(SettingsError,)):
        return load(config, os.environ)
