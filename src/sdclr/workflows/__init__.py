"""Recipes and jobs combined; each workflow can be interrupted and resumes where it stopped."""
