"""The machine: files, signals, the console, optional packages, provenance."""
