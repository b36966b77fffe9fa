"""Bytes of shards on other machines: asked for by range, again where that fails, kept in a bounded folder."""
