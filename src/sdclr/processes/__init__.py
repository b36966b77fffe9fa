"""Base: several processes that train as one; signals; norms that see the whole batch."""
