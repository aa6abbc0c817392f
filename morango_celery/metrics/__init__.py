"""Metrics for Prometheus, computed from the ledger: docs/reference/metrics.md.

Workers come and go, on several machines: the counts of one process are partial, and end with it. So any
process can be scraped, and computes all figures from the database at that moment.
"""
