"""Every exception of the package."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in a config, a data file or a command: printed as one clear line, exit code 2."""


class NaNScore(ValueError):
    """A model scored a candidate with NaN, so that nothing can be ranked."""


class NonFiniteLoss(RuntimeError):
    """Training diverged; the checkpoints written before stay."""


class Interrupted(RuntimeError):
    """SIGTERM came: the state is saved, the run can go on later."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Returns `; did you mean 'x'?` for the valid name closest to `name`, else the list of valid names."""
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; valid: {', '.join(valid)}"
