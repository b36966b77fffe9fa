"""What runs import at their first need, imported once for all processes that several_processes forks. No tests."""

import sklearn.datasets
import timm
import torch._dynamo
import torch.nn.parallel
import torchvision

import sdclr.jobs.pretrain.build
import several_processes

__all__ = ["sdclr", "several_processes", "sklearn", "timm", "torch", "torchvision"]
