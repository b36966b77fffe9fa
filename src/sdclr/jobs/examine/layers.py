"""How much of each layer the competitor keeps: RUN/examination/layers.json, from the trained weights alone."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from sdclr.backbones.weights import load_backbone
from sdclr.errors import MissingInputError
from sdclr.methods.self_competitor import SelfCompetitor
from sdclr.methods.table import competitor_settings
from sdclr.run import Run
from sdclr.run.files import LAYERS_FILE
from sdclr.safe_text import shown


def layer_densities(run: Run, network: nn.Module | None = None) -> dict[str, Any]:
    """The share of each prunable layer's weights that the finished network's competitor would keep.

    The masks are recomputed from the final weights, by the run's own rule; weights that a run prunes at random
    (``method.random_share``) are drawn as at the start of the first epoch. Needs no images. Raises MissingInputError
    for a run whose method has no competitor.
    """
    rule = competitor_settings(run.settings())
    if rule is None:
        raise MissingInputError(
            f"{shown(run.folder)} has no pruned layers: its method has no competitor. Train with method.name=sdclr."
        )
    backbone = load_backbone(run.folder, network)
    resolved = run.read_side_file("environment.json").get("resolved") or {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # training already gave these warnings
        competitor = SelfCompetitor(
            backbone.net,
            prune_ratio=rule["prune_ratio"],
            prunable=resolved.get("prunable") or rule.get("prunable", "conv"),
            random_share=rule.get("random_share") or 0.0,
            seed=int(run.settings().get("seed") or 0),
        )
    layers = [
        {
            "name": name.removesuffix(".weight"),
            "density": float(mask.float().mean()),
            "num_weights": mask.numel(),
        }
        for name, mask in competitor.masks().items()
    ]
    content = {"backbone": run.backbone_identity(), "layers": layers}
    with run:
        run.write_json(LAYERS_FILE, content)
    return content
