"""What is about the machine: files, signals, the console, optional packages, provenance."""
