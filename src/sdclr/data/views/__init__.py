"""Pixels -> views: augmentation of a whole batch at once, drawn and applied."""
