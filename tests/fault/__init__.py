"""Faults on the real system: real broker, real stores, real processes, really killed."""
