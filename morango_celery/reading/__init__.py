"""Reading of rows: under a filter, in order, and a few in memory at a time."""
