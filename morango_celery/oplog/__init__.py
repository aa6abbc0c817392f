"""Objects of another Django instance, as lines in a file that grows: recorded there, ingested here.

`recorder` and `logfile` write the file; `files`, `source`, `ingest` and `follow` read it. Both sides
keep what they must not forget in the database, in the transaction that it is about: the recorder the lines
that are to be written, the ingestion how far it has come.
"""
