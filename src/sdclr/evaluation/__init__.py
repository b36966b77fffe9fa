"""Room: frozen features -> numbers. Works on any backbone, knows no method; only ``results`` touches files."""
