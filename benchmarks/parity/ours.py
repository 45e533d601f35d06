"""What FusionJAX makes of checkpoint folders beside their expected.npz (theirs.py), and the folders it writes of them.

    python -m benchmarks.parity.ours FOLDER … --written FOLDER --errors FILE.json

Writes, for each folder, the same checkpoint under --written, and the error of every value (tests/hub/parity.py) to --errors.
"""

import argparse
import json
import os
from pathlib import Path

os.environ["PARITY_COMPILE_AS_USERS_DO"] = "1"  # read when tests.hub.parity is imported

from fusionjax.hub import write_checkpoint
from tests.hub import parity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--written", type=Path, required=True)
    parser.add_argument("--errors", type=Path, required=True)
    arguments = parser.parse_args()
    errors: dict[str, dict[str, float]] = {}
    for folder in arguments.folders:
        checkpoint, expected = parity.load(folder)
        found = parity.outputs(checkpoint, folder, expected) | parity.gradients(checkpoint, expected)
        errors[folder.name] = parity.errors(found, expected)
        write_checkpoint(arguments.written / folder.name, checkpoint)
    arguments.errors.write_text(json.dumps(errors), encoding="utf-8")


if __name__ == "__main__":
    main()
