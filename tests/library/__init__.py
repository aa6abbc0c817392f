"""An app of ordinary models of every kind that a log may bring objects of."""
