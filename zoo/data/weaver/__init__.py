"""Weaver's data configuration, and jets read as it says."""
