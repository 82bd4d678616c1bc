"""`foreshock model`: bundles in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from pipeline import bundle
from pipeline.bundle import BundleError
from pipeline.console import FAILED, err, out, sentences


def list_(root: Annotated[Path, typer.Argument(metavar="DIR")]) -> None:
    """Every version of every group; the one that serves is marked."""
    table = Table("group", "version", "serves", "sensors", "trained", box=None)
    for path in sorted(root.glob(f"*/*/{bundle.MANIFEST}")):
        with sentences(BundleError):
            manifest, _ = bundle.read_manifest(path.parent)
        pointer = path.parent.parent / bundle.SERVING
        serves = pointer.exists() and pointer.read_text(encoding="utf-8").strip() == manifest.version
        trained = str(manifest.about.get("trained_at", ""))
        table.add_row(manifest.group, manifest.version, "yes" if serves else "", str(manifest.sensors), trained)
    if not table.row_count:
        err.print(f"{root}: no bundle here; train one: foreshock train DATA --model {root}", markup=False)
        raise typer.Exit(FAILED)
    out.print(table)


def show(folder: Annotated[Path, typer.Argument(metavar="DIR/GROUP/VERSION")]) -> None:
    """The manifest of one version."""
    with sentences(BundleError):
        bundle.read_manifest(folder)
    out.print_json((folder / bundle.MANIFEST).read_text(encoding="utf-8"))


def verify(folder: Annotated[Path, typer.Argument(metavar="DIR/GROUP/VERSION")]) -> None:
    """Hashes, shapes and the golden vector, as the service checks them before it serves."""
    with sentences(BundleError), threadpool_limits(limits=1, user_api="blas"):
        model = bundle.load(folder)
    out.print(f"{folder}: sound; group {model.group}, {len(model.sensors.names)} sensors, sha256 {model.ref.sha256}")
