"""Base: several processes that train as one; signals; norms over the whole batch."""
