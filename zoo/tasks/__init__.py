"""What is learnt, judged, drawn and kept: one task a file."""
