"""Self-supervised pre-training for long-tailed, unlabeled image collections."""

from sdclr.backbones.weights import load_backbone
from sdclr.batch import Views
from sdclr.data.splits import Split, draw_long_tail
from sdclr.errors import SdclrError
from sdclr.evaluate import evaluate
from sdclr.evaluation.balancedness import Balancedness, balancedness
from sdclr.methods.nt_xent import nt_xent
from sdclr.methods.sdclr import SDCLR
from sdclr.methods.self_competitor import SelfCompetitor
from sdclr.methods.simclr import SimCLR
from sdclr.pretrain import PretrainConfig, pretrain, resume
from sdclr.recipes import recipe
from sdclr.report import build_report, write_report
from sdclr.run import Run

__version__ = "0.1.0"

__all__ = [
    "SDCLR",
    "Balancedness",
    "PretrainConfig",
    "Run",
    "SdclrError",
    "SelfCompetitor",
    "SimCLR",
    "Split",
    "Views",
    "balancedness",
    "build_report",
    "draw_long_tail",
    "evaluate",
    "load_backbone",
    "nt_xent",
    "pretrain",
    "recipe",
    "resume",
    "write_report",
]
