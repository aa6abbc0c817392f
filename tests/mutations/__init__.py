"""Mutants that do as Morango does where we differ on purpose: ``make mutants``."""
