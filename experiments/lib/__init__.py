"""What the scripts of `experiments` are made of; nothing here is run, or knows a script."""
