"""The answer of a study in plain sentences (Markdown), read off its tables and nothing else.

A difference is called one only where it is significant after correction; everything else is said to be not significant, never
equal. Sentences name the direction, the size in per cent of the other side, and what was compared.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from fusionjax.reporting.tables import metric_label, task_label
from fusionjax.studies.analysis import Analysis, Comparison, Contrast, Estimate, Table
from fusionjax.studies.grids import CORRECTIONS, EXAMPLES, number, p_value, signed
from fusionjax.studies.markdown import bold, escape, listed

if TYPE_CHECKING:
    from fusionjax.studies.collect import Collected

_MOST_NAMES = 6
"""Names in a sentence; the table has them all."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """What the main metric of a task says: a headline and further sentences, Markdown."""

    task: str
    metric: str
    headline: Markup
    sentences: tuple[Markup, ...]
    for_whom: tuple[tuple[str, tuple[Markup, ...]], ...]
    """(segment, a sentence for each of its labels)."""


def findings(collected: "Collected", analysis: Analysis) -> list[Finding]:
    """One for each task of the study."""
    found = []
    for task, (metric, *_) in analysis.tasks().items():
        table = analysis.table(task, metric)
        sentences = [
            # What the authors asked for by name comes first.
            *(_contrast(collected, table, each) for each in _contrasts(analysis, table)),
            *_against_reference(analysis, table),
            *_against_baselines(analysis, table),
        ]
        segments = []
        for segment, labels in analysis.segments(task).items():
            tables = [analysis.table(task, metric, (segment, label)) for label in labels]
            segments.append((segment, tuple(_label(analysis, each) for each in tables)))
        found.append(Finding(task, metric, _best(analysis, table), tuple(sentences), tuple(segments)))
    return found


# ----------------------------------------------------------------------------------------------------------------- parts
def best_row(analysis: Analysis, table: Table) -> str | None:
    """The model row with the best mean; `None` if none was measured."""
    measured = [row for row in analysis.rows if _estimate(table, row) is not None]
    return max(measured, key=lambda row: table.gain(_mean(table, row))) if measured else None


def best_baseline(analysis: Analysis, table: Table) -> str | None:
    measured = [name for name in analysis.baselines if _estimate(table, name) is not None]
    return max(measured, key=lambda name: table.gain(_mean(table, name))) if measured else None


def shown(estimate: Estimate) -> str:
    """`0.0583 ± 0.0004`; without ± where there is one seed."""
    return number(estimate.mean) + (f" ± {number(estimate.std)}" if estimate.std is not None else "")


def percent(difference: float, base: float | None) -> str:
    """`+3.2 %` of a positive base; the plain difference of any other."""
    if base is None or base <= 0:
        return signed(difference).replace("-", "−")
    share = 100.0 * difference / base
    digits = 0 if abs(share) >= 99.5 else 1
    return f"{share:+z.{digits}f} %".replace("-", "−")


def _estimate(table: Table, name: str) -> Estimate | None:
    return table.entries[name].estimate if name in table.entries else None


def _mean(table: Table, name: str) -> float:
    estimate = _estimate(table, name)
    return float("-inf") if estimate is None else estimate.mean


def _comparison(table: Table, name: str) -> Comparison | None:
    return table.entries[name].comparison if name in table.entries else None


def _corrected(analysis: Analysis) -> str:
    return str(CORRECTIONS.get(analysis.settings["correction"], analysis.settings["correction"]))


def _best(analysis: Analysis, table: Table) -> Markup:
    best = best_row(analysis, table)
    label = Markup(f"{escape(task_label(table.task).capitalize())}, {escape(metric_label(table.metric))}")
    estimate = None if best is None else _estimate(table, best)
    if best is None or estimate is None:
        return Markup(f"{label}: no row has been measured yet.")
    counted = f"{estimate.seeds} seed{'s' if estimate.seeds != 1 else ''}"
    counted += f", {estimate.examples:,} {EXAMPLES.get(table.task, 'examples')}"
    text = f"{label}: {'highest' if table.higher_is_better else 'lowest'} is {bold(best)} with {shown(estimate)}"
    text += f" (95 % interval {number(estimate.low)} to {number(estimate.high)}; {counted})"
    if best == analysis.reference:
        return Markup(f"{text}; it is the reference.")
    reference, comparison = _estimate(table, analysis.reference), _comparison(table, best)
    if reference is None or comparison is None:
        return Markup(f"{text}; it cannot be compared with the reference {bold(analysis.reference)}, which was not measured.")
    lead = f"{percent(comparison.difference, reference.mean)} on the reference {bold(analysis.reference)} ({shown(reference)})"
    return Markup(f"{text}, {lead}, which is {'significant' if comparison.significant else '**not** significant'}.")


def _against_reference(analysis: Analysis, table: Table) -> list[Markup]:
    reference = _estimate(table, analysis.reference)
    if reference is None:
        return [Markup(f"The reference {bold(analysis.reference)} was not measured, so no row is compared with it.")]
    compared = [(row, found) for row in analysis.rows if (found := _comparison(table, row)) is not None]
    if not compared:
        return [Markup(f"There is nothing to compare the reference {bold(analysis.reference)} with.")]
    better = sorted((pair for pair in compared if pair[1].significant and table.gain(pair[1].difference) > 0), key=_size)
    worse = sorted((pair for pair in compared if pair[1].significant and table.gain(pair[1].difference) <= 0), key=_size)
    leaning = _leaning(compared)
    level = [pair for pair in compared if not pair[1].significant and pair not in leaning]
    test = f"at {analysis.settings['alpha']:g} after {_corrected(analysis)} correction"
    found = []
    if better:
        found.append(f"Significantly **better** than the reference ({test}): {_names(better, reference.mean)}.")
    else:
        found.append(f"**No** row is significantly better than the reference {bold(analysis.reference)} ({test}).")
    if worse:
        found.append(f"Significantly **worse** than the reference: {_names(worse, reference.mean)}.")
    if leaning:
        found.append(
            "**Not significant** after correction, though each one's own 95 % interval leaves out zero: "
            f"{_names(leaning, reference.mean)}."
        )
    if level:
        found.append(f"**No significant difference** from the reference: {_names(level, reference.mean)}.")
    found += _detectable(analysis, table, reference, nothing=not better and not worse)
    absent = [row for row in analysis.rows if _estimate(table, row) is None]
    if absent:
        found.append(f"Not measured: {listed(bold(row) for row in absent)}.")
    return [Markup(text) for text in found]


def _detectable(analysis: Analysis, table: Table, reference: Estimate, *, nothing: bool) -> list[str]:
    if not nothing or table.minimum_detectable is None:
        return []
    return [
        f"Nothing differs significantly, which is no proof of equality: with these seeds and examples a true difference of "
        f"{number(table.minimum_detectable)} ({percent(table.minimum_detectable, reference.mean).lstrip('+')}) would be found "
        f"with {100 * analysis.settings.get('power', 0.8):.0f} % probability, smaller ones less often."
    ]


def _leaning(compared: Sequence[tuple[str, Comparison]]) -> list[tuple[str, Comparison]]:
    """Those that are not significant after correction but would be if nothing else had been compared."""
    return sorted((pair for pair in compared if not pair[1].significant and pair[1].low * pair[1].high > 0), key=_size)


def _size(pair: tuple[str, Comparison]) -> float:
    return -abs(pair[1].difference)


def _names(pairs: Sequence[tuple[str, Comparison]], base: float) -> Markup:
    parts = [f"{bold(row)} ({percent(found.difference, base)})" for row, found in pairs[:_MOST_NAMES]]
    rest = len(pairs) - len(parts)
    return listed([*parts, *([f"{rest} more (see the table)"] if rest else [])])


# ------------------------------------------------------------------------------------------------------------- contrasts
def _contrasts(analysis: Analysis, table: Table) -> Iterable[Contrast]:
    return (each for each in analysis.contrasts if (each.task, each.metric) == (table.task, table.metric))


def _contrast(collected: "Collected", table: Table, contrast: Contrast) -> Markup:
    """`A beats B`, `B beats A`, or `A does not beat B`."""
    first, second, found = contrast.first, contrast.second, contrast.comparison
    if found is None:
        return Markup(f"{bold(first)} against {bold(second)}: not comparable, since one of them was not measured.")
    size = f"{signed(found.difference)}, 95 % interval {signed(found.low)} to {signed(found.high)}".replace("-", "−")
    size += f", corrected p {p_value(found.p_adjusted)}".replace("p <", "p < ").replace("p 0", "p = 0").replace("p 1", "p = 1")
    what = _changed(collected, first, second)
    gap = percent(found.difference, _positive(table, second))
    if not found.significant:
        return Markup(
            f"{bold(first)} does **not** beat {bold(second)}{what}: the difference of "
            f"{gap} ({escape(size)}) is not significant."
        )
    if table.gain(found.difference) > 0:
        return Markup(f"{bold(first)} **beats** {bold(second)}{what} by {gap.lstrip('+')} ({escape(size)}).")
    return Markup(
        f"{bold(first)} does **not** beat {bold(second)}{what}: {bold(second)} is significantly **better** "
        f"({bold(first)} lies {gap} from it; {escape(size)})."
    )


def _positive(table: Table, name: str) -> float | None:
    estimate = _estimate(table, name)
    return None if estimate is None else estimate.mean


def _changed(collected: "Collected", first: str, second: str) -> Markup:
    """In which axes two rows differ, if in no more than two."""
    one, two = (collected.axis_values.get(row, {}) for row in (first, second))
    axes = [axis for axis in one if axis in two and one[axis] != two[axis]]
    if not 1 <= len(axes) <= 2:
        return Markup("")
    return Markup(" [" + "; ".join(f"{escape(axis)}: {escape(one[axis])} against {escape(two[axis])}" for axis in axes) + "]")


# ------------------------------------------------------------------------------------------------------------- baselines
def _against_baselines(analysis: Analysis, table: Table) -> list[Markup]:
    best, own = best_baseline(analysis, table), best_row(analysis, table)
    if best is None or own is None:
        return [Markup("No simple baseline was measured.")] if not analysis.baselines else []
    estimate, value = _estimate(table, best), _mean(table, own)
    assert estimate is not None
    text = f"The best simple baseline is {bold(best)} with {number(estimate.mean)}"
    comparison = _comparison(table, best)
    if comparison is not None:  # baseline − reference
        how = "not significantly different from" if not comparison.significant else "significantly "
        how += ("above" if comparison.difference > 0 else "below") if comparison.significant else ""
        gap = percent(comparison.difference, _positive(table, analysis.reference))
        text += f", {how} the reference ({gap})"
    measured = [row for row in analysis.rows if _estimate(table, row) is not None]
    rivals = [row for row in measured if table.gain(_mean(table, row) - estimate.mean) < 0]
    ahead = table.gain(value - estimate.mean) > 0
    if ahead:
        text += f"; the best row, {bold(own)}, is {percent(abs(value - estimate.mean), estimate.mean).lstrip('+')} "
        text += "above it" if table.higher_is_better else "below it"
    else:
        text += "; **no row reaches it**"
    text += "."
    if rivals and ahead:
        more = [*(bold(row) for row in rivals[:_MOST_NAMES])]
        more += [Markup(f"{len(rivals) - _MOST_NAMES} more")] if len(rivals) > _MOST_NAMES else []
        text += f" Rows that do not reach it: {listed(more)}."
    return [Markup(text)]


# -------------------------------------------------------------------------------------------------------------- segments
def _label(analysis: Analysis, table: Table) -> Markup:
    """One label of a segment: who is better and worse than the reference, in whose favour the most."""
    assert table.segment is not None
    unit = EXAMPLES.get(table.task, "examples")
    start = f"{bold(table.segment[1])} ({table.examples:,} {unit}"
    reference = _estimate(table, analysis.reference)
    if reference is None:
        return Markup(f"{start}): the reference was not measured.")
    start += f"; reference {shown(reference)}): "
    compared = [(row, found) for row in analysis.rows if (found := _comparison(table, row)) is not None]
    better = sorted((pair for pair in compared if pair[1].significant and table.gain(pair[1].difference) > 0), key=_size)
    worse = sorted((pair for pair in compared if pair[1].significant and table.gain(pair[1].difference) <= 0), key=_size)
    parts = [
        f"significantly {word}: {_names(pairs, reference.mean)}"
        for word, pairs in (("better", better), ("worse", worse))
        if pairs
    ]
    leaning = _leaning(compared)
    if leaning:
        parts.append(
            f"not significant after correction, though their own intervals leave out zero: {_names(leaning, reference.mean)}"
        )
    level = len(compared) - len(better) - len(worse) - len(leaning)
    if not parts and level == 1:
        return Markup(f"{start}no significant difference from the reference in the one other row.")
    if not parts:
        return Markup(f"{start}no significant difference from the reference in any of {level} rows.")
    return Markup(start + "; ".join(parts) + (f"; {level} not significantly different." if level else "."))
