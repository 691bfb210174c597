"""What the scripts share: questions, learning rates, tables, records, the report."""
