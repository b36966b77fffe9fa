"""sdclr recipes."""

from __future__ import annotations

from typing import Annotated

import typer

from sdclr.cli.consoles import echo_json
from sdclr.cli.options import AsJson

recipes_app = typer.Typer(help="List and show the ready-made settings.", no_args_is_help=True)


@recipes_app.command("list")
def list_recipes(as_json: AsJson = False) -> None:
    """List the recipes, with one line each."""
    from sdclr.recipes import RECIPES

    if as_json:
        for row in RECIPES.values():
            echo_json({"name": row.name, "summary": row.summary})
        return
    width = max(map(len, RECIPES))
    for row in RECIPES.values():
        typer.echo(f"{row.name:<{width}}  {row.summary}")


@recipes_app.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(metavar="NAME")], as_json: AsJson = False
) -> None:
    """Print all settings of one recipe, as the config.yaml that --config takes."""
    from sdclr.recipes import recipe

    config = recipe(name)
    if as_json:
        echo_json(config.to_dict())
    else:
        typer.echo(config.to_yaml(), nl=False)
