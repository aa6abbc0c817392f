"""Helpers that tests of several folders share; README.md says how to write a test with them."""
