"""Bad input: generated queries over the whole schema by every role, and HTTP that no client should send."""
