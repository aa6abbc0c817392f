"""Version of this package: the ledger notes that of each worker."""

__version__ = "0.1.0"
