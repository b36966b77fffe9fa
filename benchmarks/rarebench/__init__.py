"""RareBench: how well a score finds rare classes without labels, on sets whose labels are known.

    python -m benchmarks.rarebench            (or: make rarebench)

sets -> encoders -> measures -> one JSON file a cell -> tables, plots, docs/rarebench.md.
"""
