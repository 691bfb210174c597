"""`longlag demo` under its earlier name, so that recorded commands still run."""

import sys

from longlag.cli.commands import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
