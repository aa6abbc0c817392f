"""Replication of objects between Django projects through a file of changes: recorded there, ingested here.

`recorder` and `logfile` write the file; `files`, `source`, `ingest` and `follow` read it. Both sides keep
their state in the database, in the transaction of the change: the recorder the lines to be written (a
transactional outbox), the ingestion its position.
"""
