"""Real data sets, one file each, read from a package: installed, or fetched and unpacked."""
