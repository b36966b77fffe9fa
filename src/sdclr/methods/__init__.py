"""Two views -> a loss per image. Never opens a data set, works with any backbone."""

from typing import TYPE_CHECKING

from sdclr.lazy_names import names_from
from sdclr.methods.config import MethodConfig, SDCLRConfig, SimCLRConfig
from sdclr.methods.table import METHODS, register_method

if TYPE_CHECKING:
    from sdclr.methods.build import build_method
    from sdclr.methods.contrastive import ContrastiveMethod
    from sdclr.methods.method import Method, Parts
    from sdclr.methods.sdclr import SDCLR
    from sdclr.methods.simclr import SimCLR

__all__ = [
    "METHODS",
    "SDCLR",
    "ContrastiveMethod",
    "Method",
    "MethodConfig",
    "Parts",
    "SDCLRConfig",
    "SimCLR",
    "SimCLRConfig",
    "build_method",
    "register_method",
]

__getattr__ = names_from(
    __name__,
    {
        "ContrastiveMethod": "sdclr.methods.contrastive",
        "Method": "sdclr.methods.method",
        "Parts": "sdclr.methods.method",
        "SDCLR": "sdclr.methods.sdclr",
        "SimCLR": "sdclr.methods.simclr",
        "build_method": "sdclr.methods.build",
    },
)
