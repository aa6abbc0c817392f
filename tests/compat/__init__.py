"""Tests in environments with other releases of Django, and of PostgreSQL: ``python -m tests.compat``."""
