"""One file a format: how its columns are found, and what of them becomes a table of jets or events."""
