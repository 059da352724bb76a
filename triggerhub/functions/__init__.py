"""Code functions: serve a handler, and keep the processes that do."""
