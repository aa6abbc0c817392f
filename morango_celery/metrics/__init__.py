"""Figures for Prometheus, from the ledger: docs/metrics.md.

Workers come and go, on several machines: what one process counts is a part of the truth, and gone with it. So
all figures are computed from the database when they are asked for, by whatever process is asked.
"""
