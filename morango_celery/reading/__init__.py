"""How rows are read: under a filter, in order, and a few in memory at a time."""
