"""Self-supervised pre-training for long-tailed, unlabelled image collections.

The names below are loaded on first use, so that ``import sdclr`` and ``sdclr --help`` do not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdclr.lazy_names import names_from

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


_HOMES = {
    "load_classifier": "sdclr.backbones.classifier",
    "register_backbone": "sdclr.backbones.table",
    "load_backbone": "sdclr.backbones.weights",
    "Views": "sdclr.batch",
    "keep_freed_memory": "sdclr.compute.process_state",
    "given": "sdclr.data.given",
    "register_views": "sdclr.data.own_views",
    "Split": "sdclr.data.splits",
    "draw_long_tail": "sdclr.data.splits",
    "register_source": "sdclr.data.table",
    "SdclrError": "sdclr.errors",
    "Balancedness": "sdclr.evaluation.balancedness",
    "balancedness": "sdclr.evaluation.balancedness",
    "ProbeTask": "sdclr.evaluation.probe",
    "ProbeConfig": "sdclr.evaluation.probe_settings",
    "register_probe": "sdclr.evaluation.probes",
    "register_score": "sdclr.evaluation.rarity.table",
    "Evaluation": "sdclr.evaluation.results",
    "ProbeResult": "sdclr.evaluation.results",
    "adopt": "sdclr.jobs.adopt",
    "convert": "sdclr.jobs.convert",
    "embed": "sdclr.jobs.embed",
    "compare": "sdclr.jobs.evaluate",
    "evaluate": "sdclr.jobs.evaluate",
    "evaluate_classifier": "sdclr.jobs.evaluate",
    "few_labels": "sdclr.jobs.evaluate",
    "examine": "sdclr.jobs.examine",
    "export": "sdclr.jobs.export",
    "FinetuneConfig": "sdclr.jobs.finetune",
    "finetune": "sdclr.jobs.finetune",
    "mine": "sdclr.jobs.mine",
    "predict": "sdclr.jobs.predict",
    "pretrain": "sdclr.jobs.pretrain",
    "resume": "sdclr.jobs.pretrain",
    "profile": "sdclr.jobs.profile",
    "build_paper_table": "sdclr.jobs.report",
    "build_report": "sdclr.jobs.report",
    "write_figures": "sdclr.jobs.report",
    "write_paper_table": "sdclr.jobs.report",
    "write_report": "sdclr.jobs.report",
    "MethodConfig": "sdclr.methods.config",
    "Method": "sdclr.methods.method",
    "nt_xent": "sdclr.methods.nt_xent",
    "SDCLR": "sdclr.methods.sdclr",
    "SelfCompetitor": "sdclr.methods.self_competitor",
    "SimCLR": "sdclr.methods.simclr",
    "register_method": "sdclr.methods.table",
    "Observer": "sdclr.observers",
    "register_curve": "sdclr.presentation.report",
    "recipe": "sdclr.recipes",
    "register_recipe": "sdclr.recipes",
    "Run": "sdclr.run",
    "PretrainConfig": "sdclr.settings",
    "grid": "sdclr.workflows.grid.run",
}
__getattr__ = names_from(__name__, _HOMES)
__all__ = sorted(_HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
