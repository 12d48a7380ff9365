"""Pictures, tables and the report, made from arrays and dicts: nothing here runs a network."""
