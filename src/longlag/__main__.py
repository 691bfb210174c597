"""`python -m longlag`, the same as the command `longlag`."""

import sys

from longlag.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
