"""An app for workers under test, which die at the point of a run's task that a test has chosen."""
