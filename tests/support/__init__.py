"""Helpers that tests of several folders share; docs/develop/testing.md says how to write a test with them."""
