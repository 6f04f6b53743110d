"""Random histories of a few documents, with kill -9 in between: they end like a fresh ingest of what is left."""
