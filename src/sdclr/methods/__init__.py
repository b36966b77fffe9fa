"""Room: two views -> a loss per image. Never opens a data set, works on any backbone."""

from typing import TYPE_CHECKING

from sdclr.lazy_names import names_from
from sdclr.methods.config import METHODS, MethodConfig, SDCLRConfig, SimCLRConfig

if TYPE_CHECKING:
    from sdclr.methods.build import build_method
    from sdclr.methods.method import Method
    from sdclr.methods.sdclr import SDCLR
    from sdclr.methods.simclr import SimCLR

__all__ = [
    "METHODS",
    "SDCLR",
    "Method",
    "MethodConfig",
    "SDCLRConfig",
    "SimCLR",
    "SimCLRConfig",
    "build_method",
]

__getattr__ = names_from(
    __name__,
    {
        "Method": "sdclr.methods.method",
        "SDCLR": "sdclr.methods.sdclr",
        "SimCLR": "sdclr.methods.simclr",
        "build_method": "sdclr.methods.build",
    },
)
