"""The `foreshock` command. Nothing is decided here: each command reads its words and calls whoever does the work.

A command's module is imported when the command is asked for, so that the service starts without what the others need;
what only training needs is imported inside the commands that train.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

COMMANDS = {  # words -> module and function
    "run": "service.run",
    "train": "learn.train",
    "retrain": "learn.retrain",
    "replay": "judge.replay",
    "evaluate": "judge.evaluate",
    "demo": "demo.demo",
    "produce": "produce.produce",
    "plant": "demo.plant",
    "rekey": "rekey.rekey",
    "alerts": "asking.alerts",
    "doctor": "doctor.doctor",
    "sensor show": "sensor.show",
    "sensor retire": "sensor.retire",
    "sensor maintenance": "sensor.maintenance",
    "checkpoint repartition": "checkpoint.repartition",
    "model list": "model.list_",
    "model show": "model.show",
    "model verify": "model.verify",
}
GROUPS = {
    "sensor": "One sensor of a running service.",
    "checkpoint": "What a restart continues from.",
    "model": "Model bundles in a folder.",
}


class Commands(TyperGroup):
    """The table above."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - handed over to every group
        """Their first words."""
        return list(dict.fromkeys(words.partition(" ")[0] for words in COMMANDS))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command, or, of a word that is none, those it may have been meant for."""
        words = self.list_commands(ctx)
        if args[0] not in words:  # only then they all have to be loaded
            self.commands = {word: self.get_command(ctx, word) for word in words}
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - likewise
        """The command, or the group of commands, that begins with this word; None where there is none."""
        of_it = {words: place for words, place in COMMANDS.items() if words.partition(" ")[0] == cmd_name}
        if not of_it:
            return None
        group = typer.Typer(help=GROUPS.get(cmd_name), no_args_is_help=cmd_name in GROUPS, add_completion=False)
        for words, place in of_it.items():
            module, _, function = place.partition(".")
            called = getattr(import_module(f"{__name__}.{module}"), function)
            group.command(words.rpartition(" ")[2])(called)
        if cmd_name in GROUPS:
            group.callback()(lambda: None)  # a group, though it has one command
        command = typer.main.get_command(group)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=Commands,
    help="Watches sensors: learns how each signal moves, follows it live from Kafka, alerts when it stops doing so.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.callback()(lambda: None)  # the commands are in the table


def main() -> None:
    """Entry point of the distribution."""
    app()
