"""The app that the verbs belong to, and what runs before any of them."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import sdclr
from sdclr.cli.lost_output import running_command
from sdclr.cli.options import probes_help
from sdclr.errors import Interrupted, MissingInputError


class Verbs(TyperGroup):
    """The verbs; Ctrl-C in a verb that does not handle it itself is reported as an interruption, not as a bug."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as pressed:
            verb = ctx.invoked_subcommand
            goes_on = " The same command continues from here." if verb in GO_ON else ""
            stopped = Interrupted(
                f"by Ctrl-C; no incomplete file is left under its final name.{goes_on}"
            )
            stopped.reported_elsewhere = getattr(pressed, "reported_elsewhere", False)
            raise stopped from None
        except Exception as error:
            if type(error).__name__ == "NoSuchOption":  # from click, or typer's own
                _name_setting(error)
            raise

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A verb; its help lists the current entries of the tables, including external ones."""
        found: Any = super().get_command(ctx, cmd_name)
        for option in found.params if found is not None and cmd_name == "evaluate" else []:
            if option.name == "probes":
                option.help = probes_help()
        return found


def _name_setting(error: Any) -> None:
    """Explain how settings are written, if an unknown option has the name of a setting."""
    if error.ctx is None or error.ctx.command.name not in TAKE_SETTINGS:
        return
    from sdclr.config import setting_meant
    from sdclr.settings import PretrainConfig

    if meant := setting_meant(PretrainConfig, error.option_name.lstrip("-")):
        error.message = f"No such option: {error.option_name}. It is a setting: write {meant}=VALUE, without dashes."
        error.possibilities = None


TAKE_SETTINGS = ("demo", "pretrain", "reproduce")
"""Verbs that take training settings as KEY=VALUE."""
GO_ON = (
    *("demo", "embed", "finetune", "grid", "mine"),
    *("predict", "pretrain", "reproduce", "resume"),
)
"""Verbs that resume interrupted work."""


app = typer.Typer(
    name="sdclr",
    cls=Verbs,
    help="Self-supervised pre-training for long-tailed, unlabelled image collections.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


FOR_SEVERAL_PROCESSES = (
    *("embed", "evaluate", "finetune", "mine"),
    *("predict", "pretrain", "resume"),
)
"""Verbs that torchrun may start."""


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sdclr {sdclr.__version__}")
        raise typer.Exit


def _require_current_folder() -> None:
    """MissingInputError where it has been removed: torch's libraries then end the process in their own words."""
    try:
        os.getcwd()
    except OSError:
        raise MissingInputError(
            "the current folder no longer exists. Change to another one (cd), and give the command again."
        ) from None


@app.callback()
def before_any_verb(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and stop.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    running_command.verb, running_command.only_text = context.invoked_subcommand, False
    _require_current_folder()
    if "WORLD_SIZE" in os.environ or "RANK" in os.environ:
        from sdclr.processes.environment import check_environment, require_one_process

        check_environment()
        if context.invoked_subcommand not in FOR_SEVERAL_PROCESSES:
            require_one_process(f"sdclr {context.invoked_subcommand}")
