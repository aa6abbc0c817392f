"""Differences between PostgreSQL and SQLite, apart from the SQL of one direction."""
