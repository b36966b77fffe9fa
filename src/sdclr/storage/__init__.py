"""Base: files that are whole or not there, checkpoints, locks; nothing is ever unpickled."""
