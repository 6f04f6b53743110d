"""What crosses a boundary: records, topics, ids, headers and settings. No I/O in here."""
