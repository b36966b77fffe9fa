"""Bytes of shards on other machines: requested by range, again after a failure, and kept in a bounded folder."""
