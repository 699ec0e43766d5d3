"""One file per format: how its columns are found, and which of them make a table of jets or events."""
