"""The command line: verbs and flags -> a config and a job. No logic of its own.

A verb is a function in its own file; the order of the lines below is the order of the help.
Heavy modules are imported inside the verbs, so that --help responds at once.
"""

from sdclr.cli import (
    convert,
    demo,
    embed,
    evaluate,
    export,
    finetune,
    grid,
    methods,
    mine,
    predict,
    pretrain,
    profile,
    recipes,
    report,
    reproduce,
    status,
)
from sdclr.cli.app import app
from sdclr.cli.entry import main

__all__ = ["app", "main"]

app.command()(demo.demo)
app.command(no_args_is_help=True)(pretrain.pretrain)
app.command()(pretrain.resume)
app.command()(methods.methods)
app.command()(status.status)
app.command()(evaluate.evaluate)
app.command()(report.report)
app.command()(report.figures)
app.command()(reproduce.reproduce)
app.command()(grid.grid)
app.command()(embed.embed)
app.command(no_args_is_help=True)(mine.mine)
app.command(no_args_is_help=True)(finetune.finetune)
app.command(no_args_is_help=True)(predict.predict)
app.command()(profile.profile)
app.command()(convert.convert)
app.command(no_args_is_help=True)(export.export)
app.add_typer(recipes.recipes_app, name="recipes")
