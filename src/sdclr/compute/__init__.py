"""Base: devices, precision, compiling, optimisers, and random numbers that are a function of their counters."""
