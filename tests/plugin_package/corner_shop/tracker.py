"""A tracker: every row of metrics as a line of a text file in the run folder."""

from fusionjax.training.trackers import Facts, Session


def lines(facts: Facts, known: str | None) -> Session:
    facts.folder.mkdir(parents=True, exist_ok=True)
    file = (facts.folder / "lines.txt").open("a", encoding="utf-8")
    return Session("lines", lambda step, metrics: print(step, metrics, file=file), lambda status: file.close())
