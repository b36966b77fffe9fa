"""Self-supervised pre-training for long-tailed, unlabelled image collections.

The names below are loaded on first use, so that ``import sdclr`` and ``sdclr --help`` do not wait for torch.
"""

from __future__ import annotations

import ast
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdclr.backbones.classifier import load_classifier as load_classifier
    from sdclr.backbones.table import register_backbone as register_backbone
    from sdclr.backbones.weights import load_backbone as load_backbone
    from sdclr.batch import Views as Views
    from sdclr.compute.process_state import keep_freed_memory as keep_freed_memory
    from sdclr.data.given import given as given
    from sdclr.data.own_views import register_views as register_views
    from sdclr.data.splits import Split as Split
    from sdclr.data.splits import draw_long_tail as draw_long_tail
    from sdclr.data.table import register_source as register_source
    from sdclr.errors import SdclrError as SdclrError
    from sdclr.evaluation.balancedness import Balancedness as Balancedness
    from sdclr.evaluation.balancedness import balancedness as balancedness
    from sdclr.evaluation.probe import ProbeTask as ProbeTask
    from sdclr.evaluation.probe_settings import ProbeConfig as ProbeConfig
    from sdclr.evaluation.probes import register_probe as register_probe
    from sdclr.evaluation.rarity.table import register_score as register_score
    from sdclr.evaluation.results import Evaluation as Evaluation
    from sdclr.evaluation.results import ProbeResult as ProbeResult
    from sdclr.jobs.adopt import adopt as adopt
    from sdclr.jobs.convert import convert as convert
    from sdclr.jobs.embed import embed as embed
    from sdclr.jobs.evaluate import compare as compare
    from sdclr.jobs.evaluate import evaluate as evaluate
    from sdclr.jobs.evaluate import evaluate_classifier as evaluate_classifier
    from sdclr.jobs.evaluate import few_labels as few_labels
    from sdclr.jobs.examine import examine as examine
    from sdclr.jobs.export import export as export
    from sdclr.jobs.finetune import FinetuneConfig as FinetuneConfig
    from sdclr.jobs.finetune import finetune as finetune
    from sdclr.jobs.mine import mine as mine
    from sdclr.jobs.predict import predict as predict
    from sdclr.jobs.pretrain import pretrain as pretrain
    from sdclr.jobs.pretrain import resume as resume
    from sdclr.jobs.profile import profile as profile
    from sdclr.jobs.report import build_paper_table as build_paper_table
    from sdclr.jobs.report import build_report as build_report
    from sdclr.jobs.report import write_figures as write_figures
    from sdclr.jobs.report import write_paper_table as write_paper_table
    from sdclr.jobs.report import write_report as write_report
    from sdclr.methods.config import MethodConfig as MethodConfig
    from sdclr.methods.method import Method as Method
    from sdclr.methods.nt_xent import nt_xent as nt_xent
    from sdclr.methods.sdclr import SDCLR as SDCLR
    from sdclr.methods.self_competitor import SelfCompetitor as SelfCompetitor
    from sdclr.methods.simclr import SimCLR as SimCLR
    from sdclr.methods.table import register_method as register_method
    from sdclr.observers import Observer as Observer
    from sdclr.presentation.report import register_curve as register_curve
    from sdclr.recipes import recipe as recipe
    from sdclr.recipes import register_recipe as register_recipe
    from sdclr.run import Run as Run
    from sdclr.settings import PretrainConfig as PretrainConfig
    from sdclr.workflows.grid.run import grid as grid

__version__ = "0.1.0"


def _public_names() -> dict[str, str]:
    """Name -> its module: the imports under TYPE_CHECKING, the only list of public names, read from this file."""
    assert __spec__.loader is not None
    source: str = __spec__.loader.get_source(__name__)  # type: ignore[attr-defined]
    (block,) = (node for node in ast.parse(source).body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


_HOME = _public_names()
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sdclr' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
