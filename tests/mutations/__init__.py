"""Break the pipeline's rules one at a time, and see that a test fails each time: ``make mutants``."""
