"""`python -m fusionjax.cli`."""

import sys

from fusionjax.cli import main

if __name__ == "__main__":
    sys.exit(main())
