"""Room: frozen features -> numbers. Works on any backbone; reads no files and knows no method."""
