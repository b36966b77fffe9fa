"""Self-supervised pre-training for long-tailed, unlabeled image collections.

The names below are loaded on first use, so that ``import sdclr`` and ``sdclr --help`` do not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdclr.backbones.weights import load_backbone
    from sdclr.batch import Views
    from sdclr.data.splits import Split, draw_long_tail
    from sdclr.errors import SdclrError
    from sdclr.evaluation.balancedness import Balancedness, balancedness
    from sdclr.evaluation.probe import ProbeConfig, ProbeTask
    from sdclr.evaluation.probes import register_probe
    from sdclr.evaluation.results import Evaluation, ProbeResult
    from sdclr.jobs.adopt import adopt
    from sdclr.jobs.convert import convert
    from sdclr.jobs.embed import embed
    from sdclr.jobs.evaluate import evaluate, evaluate_classifier
    from sdclr.jobs.examine import examine
    from sdclr.jobs.pretrain import pretrain, resume
    from sdclr.jobs.report import build_paper_table, build_report, write_paper_table, write_report
    from sdclr.methods.nt_xent import nt_xent
    from sdclr.methods.sdclr import SDCLR
    from sdclr.methods.self_competitor import SelfCompetitor
    from sdclr.methods.simclr import SimCLR
    from sdclr.presentation.report import register_curve
    from sdclr.process_state import keep_freed_memory
    from sdclr.recipes import recipe
    from sdclr.run import Run
    from sdclr.settings import PretrainConfig

__version__ = "0.1.0"

_HOME = {
    "Balancedness": "sdclr.evaluation.balancedness",
    "Evaluation": "sdclr.evaluation.results",
    "PretrainConfig": "sdclr.settings",
    "ProbeConfig": "sdclr.evaluation.probe",
    "ProbeResult": "sdclr.evaluation.results",
    "ProbeTask": "sdclr.evaluation.probe",
    "Run": "sdclr.run",
    "SDCLR": "sdclr.methods.sdclr",
    "SdclrError": "sdclr.errors",
    "SelfCompetitor": "sdclr.methods.self_competitor",
    "SimCLR": "sdclr.methods.simclr",
    "Split": "sdclr.data.splits",
    "Views": "sdclr.batch",
    "adopt": "sdclr.jobs.adopt",
    "balancedness": "sdclr.evaluation.balancedness",
    "build_paper_table": "sdclr.jobs.report",
    "build_report": "sdclr.jobs.report",
    "convert": "sdclr.jobs.convert",
    "draw_long_tail": "sdclr.data.splits",
    "embed": "sdclr.jobs.embed",
    "evaluate": "sdclr.jobs.evaluate",
    "evaluate_classifier": "sdclr.jobs.evaluate",
    "examine": "sdclr.jobs.examine",
    "keep_freed_memory": "sdclr.process_state",
    "load_backbone": "sdclr.backbones.weights",
    "nt_xent": "sdclr.methods.nt_xent",
    "pretrain": "sdclr.jobs.pretrain",
    "recipe": "sdclr.recipes",
    "register_curve": "sdclr.presentation.report",
    "register_probe": "sdclr.evaluation.probes",
    "resume": "sdclr.jobs.pretrain",
    "write_paper_table": "sdclr.jobs.report",
    "write_report": "sdclr.jobs.report",
}

__all__ = [
    "SDCLR",
    "Balancedness",
    "Evaluation",
    "PretrainConfig",
    "ProbeConfig",
    "ProbeResult",
    "ProbeTask",
    "Run",
    "SdclrError",
    "SelfCompetitor",
    "SimCLR",
    "Split",
    "Views",
    "adopt",
    "balancedness",
    "build_paper_table",
    "build_report",
    "convert",
    "draw_long_tail",
    "embed",
    "evaluate",
    "evaluate_classifier",
    "examine",
    "keep_freed_memory",
    "load_backbone",
    "nt_xent",
    "pretrain",
    "recipe",
    "register_curve",
    "register_probe",
    "resume",
    "write_paper_table",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sdclr' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
