"""A grid of arms x splits x seeds to answer a question: a file, its runs, their records and a report."""
