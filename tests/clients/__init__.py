"""Clients that others generate from our schema: examples to start from, and their proof against a running gateway."""
