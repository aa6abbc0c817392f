"""Local edits through Morango's serialization and through ours: the same database must come of both."""
