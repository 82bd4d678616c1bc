"""The `foreshock` command. Nothing is decided here: each command reads its words and calls whoever does the work.

What only training needs is imported inside the commands that train, so that the service never loads it.
"""

from __future__ import annotations

import typer

from pipeline.cli import checkpoint, demo, judge, learn, model, produce, rekey, sensor, service

app = typer.Typer(
    help="Watches sensors: learns how each signal moves, follows it live from Kafka, alerts when it stops doing so.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
sensor_app = typer.Typer(help="One sensor of a running service.", no_args_is_help=True)
checkpoint_app = typer.Typer(help="What a restart continues from.", no_args_is_help=True)
model_app = typer.Typer(help="Model bundles in a folder.", no_args_is_help=True)

app.command("run")(service.run)
app.command("train")(learn.train)
app.command("retrain")(learn.retrain)
app.command("replay")(judge.replay)
app.command("evaluate")(judge.evaluate)
app.command("demo")(demo.demo)
app.command("produce")(produce.produce)
app.command("plant")(demo.plant)
app.command("rekey")(rekey.rekey)
app.command("alerts")(service.alerts)
app.command("doctor")(service.doctor)

app.add_typer(sensor_app, name="sensor")
sensor_app.command("show")(sensor.show)
sensor_app.command("retire")(sensor.retire)
sensor_app.command("maintenance")(sensor.maintenance)

app.add_typer(checkpoint_app, name="checkpoint")
checkpoint_app.command("repartition")(checkpoint.repartition)

app.add_typer(model_app, name="model")
model_app.command("list")(model.list_)
model_app.command("show")(model.show)
model_app.command("verify")(model.verify)


def main() -> None:
    """Entry point of the distribution."""
    app()
