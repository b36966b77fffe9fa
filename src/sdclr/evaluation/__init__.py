"""Frozen features -> numbers. Works with any backbone, independent of the method; only ``results`` touches files."""
