"""What a step, its views and its masks cost here, against what people would otherwise run: ratios from one run."""

from bench.run import Settings, run_bench

__all__ = ["Settings", "run_bench"]
