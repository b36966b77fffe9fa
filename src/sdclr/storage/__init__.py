"""Base: files that are whole or absent, checkpoints, locks; nothing is ever unpickled."""
