"""Room: images, labels, splits and views. Never sees a network; hands out positions, uint8 images and view batches."""

from typing import TYPE_CHECKING

from sdclr.data.config import DataConfig, ViewsConfig
from sdclr.data.table import SOURCES, register_source
from sdclr.lazy_names import names_from

if TYPE_CHECKING:
    from sdclr.data.build import Data, build_data
    from sdclr.data.collections.images import BadFile, Images, LabelledImages
    from sdclr.data.epoch_order import epoch_batches, epoch_draws, steps_per_epoch
    from sdclr.data.splits import draw_long_tail
    from sdclr.data.views.augment import make_views
    from sdclr.data.views.parameters import ViewSpec

__all__ = [
    "SOURCES",
    "BadFile",
    "Data",
    "DataConfig",
    "Images",
    "LabelledImages",
    "ViewSpec",
    "ViewsConfig",
    "build_data",
    "draw_long_tail",
    "epoch_batches",
    "epoch_draws",
    "make_views",
    "register_source",
    "steps_per_epoch",
]

__getattr__ = names_from(
    __name__,
    {
        "BadFile": "sdclr.data.collections.images",
        "Data": "sdclr.data.build",
        "Images": "sdclr.data.collections.images",
        "LabelledImages": "sdclr.data.collections.images",
        "ViewSpec": "sdclr.data.views.parameters",
        "build_data": "sdclr.data.build",
        "draw_long_tail": "sdclr.data.splits",
        "epoch_batches": "sdclr.data.epoch_order",
        "epoch_draws": "sdclr.data.epoch_order",
        "make_views": "sdclr.data.views.augment",
        "steps_per_epoch": "sdclr.data.epoch_order",
    },
)
