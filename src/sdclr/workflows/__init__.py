"""Recipes and jobs strung together; each can be interrupted and goes on where it stopped."""
