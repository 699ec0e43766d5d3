"""What makes models fast: packed jets, pairs in blocks, products for the processor at hand; knows no model."""
