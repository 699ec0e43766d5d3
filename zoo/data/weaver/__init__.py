"""What weaver's data configuration says of jets, and the jets read as it says."""
