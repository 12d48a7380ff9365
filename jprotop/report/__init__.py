"""Pictures, tables and the report: pure functions from arrays and dicts; no jax, no network."""
