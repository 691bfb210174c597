"""Real data sets, one file each, read from an installed package: nothing is downloaded."""
