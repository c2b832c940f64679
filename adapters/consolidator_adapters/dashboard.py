"""The measures of what was learnt as an SVG picture: a panel for each, with its last days; below, whether confidence proves true.

Every panel says its value in words and on how much it rests. Where a day is unknown the line is broken. Nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from consolidator.calibration import Band, Calibration
from consolidator.tallies import NAMED, Figure, Measurement, Measures, Named, worded
from consolidator_adapters.heatmap import FONT, NO_XML

EDGE, ACROSS = 24, 3
WIDE, HIGH, GAP = 300, 150, 16  # of a panel, and between two
PLOT_LEFT, PLOT_TOP, PLOT_WIDE, PLOT_HIGH = 12, 74, 276, 48  # within a panel
TOP = 72  # height of title and subtitle
BAND, LABEL = 28, 190  # height of a band's row, and width of its label
LINE, FAINT, GREY, INK = "#2171b5", "#e6e6e6", "#666666", "#111111"
Points = list[tuple[float, float]]


def svg(told: Measurement, tested: Calibration | None = None) -> str:
    """A picture of its own, with a white ground."""
    rows = -(-len(NAMED) // ACROSS)
    below = TOP + rows * (HIGH + GAP)
    width = 2 * EDGE + ACROSS * WIDE + (ACROSS - 1) * GAP
    height = below + EDGE + (0 if tested is None else 80 + BAND * len(tested.bands))
    title = "What was learnt, and whether it helps"
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' viewBox='0 0 {width} {height}' role='img' "
        f"aria-label='{title}' {FONT} font-size='12'>",
        f"<title>{title}</title>", f"<rect width='{width}' height='{height}' fill='#ffffff'/>",
        text(EDGE, 32, title, "font-size='18' font-weight='bold'"), text(EDGE, 53, _window(told.whole), f"fill='{GREY}'"),
    ]
    for place, named in enumerate(NAMED):
        left, top = EDGE + place % ACROSS * (WIDE + GAP), TOP + place // ACROSS * (HIGH + GAP)
        parts.append(f"<g transform='translate({left},{top})'>{''.join(_panel(named, told))}</g>")
    if tested is not None:
        parts.append(f"<g transform='translate({EDGE},{below})'>{''.join(_calibration(tested, width - 2 * EDGE))}</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _window(whole: Measures) -> str:
    began = f"{whole.since:%Y-%m-%d}" if whole.since else "the beginning"
    seen = f"{whole.sessions:,} sessions, {whole.attempts:,} attempts, {whole.items:,} items"
    return f"From {began} to {whole.until:%Y-%m-%d %H:%M} UTC: {seen}. Lines: the last days; broken where nothing is known."


def _panel(named: Named, told: Measurement) -> Iterator[str]:
    whole: Figure = getattr(told.whole, named.field)
    days: list[Figure] = [getattr(day, named.field) for day in told.days]
    yield f"<rect width='{WIDE}' height='{HIGH}' rx='4' fill='#fafafa' stroke='{FAINT}'/>"
    yield text(PLOT_LEFT, 22, named.title, f"fill='{INK}' font-weight='bold'")
    letters = INK if whole.value is not None else GREY
    yield text(PLOT_LEFT, 52, worded(whole, share=named.share), f"font-size='22' fill='{letters}'")
    yield text(PLOT_LEFT + PLOT_WIDE, 52, f"of {whole.n:,} {named.of}", f"text-anchor='end' fill='{GREY}' font-size='11'")
    yield from _axis(told.days)
    most = 1.0 if named.share else max([day.value for day in days if day.value is not None] or [0.0]) or 1.0
    for run in runs(days, most):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in run)
        yield f"<polyline points='{path}' fill='none' stroke='{LINE}' stroke-width='2'/>" if len(run) > 1 else ""
        yield "".join(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{LINE}'/>" for x, y in run)


def _axis(days: Sequence[Measures]) -> Iterator[str]:
    base = PLOT_TOP + PLOT_HIGH
    yield f"<line x1='{PLOT_LEFT}' y1='{base}' x2='{PLOT_LEFT + PLOT_WIDE}' y2='{base}' stroke='{FAINT}'/>"
    if days:
        yield text(PLOT_LEFT, base + 16, f"{days[0].until:%m-%d}", f"fill='{GREY}' font-size='10'")
        end = f"text-anchor='end' fill='{GREY}' font-size='10'"
        yield text(PLOT_LEFT + PLOT_WIDE, base + 16, f"{days[-1].until:%m-%d}", end)


def runs(days: Sequence[Figure], most: float) -> list[Points]:
    """Where the line goes: a run of points for each stretch of days that are known. most: the value at the top."""
    step = PLOT_WIDE / max(1, len(days) - 1)
    found: list[Points] = [[]]
    for place, day in enumerate(days):
        if day.value is None:
            found.append([])
        else:
            found[-1].append((PLOT_LEFT + place * step, PLOT_TOP + PLOT_HIGH * (1 - day.value / most)))
    return [run for run in found if run]


def _calibration(tested: Calibration, width: int) -> Iterator[str]:
    known = {True: "yes, the rates rise", False: "no, the rates do not rise"}
    told = known[tested.rises] if tested.rises is not None else f"not known; {tested.reason}"
    score = "" if tested.brier is None else f"; Brier score {tested.brier:.3f}"
    yield text(0, 20, "Does confidence prove true?", "font-weight='bold' font-size='14'")
    legend = "Blue: items that proved true, with the 95 % interval; grey: the confidence."
    yield text(0, 40, f"{told}{score}", f"fill='{GREY}'")
    yield text(0, 56, legend, f"fill='{GREY}'")
    for place, band in enumerate(tested.bands):
        yield from _band(band, 68 + place * BAND, width)


def _band(band: Band, top: int, width: int) -> Iterator[str]:
    long, middle = width - LABEL - 150, top + BAND / 2
    yield text(0, round(middle + 4), f"confidence {band.low:.1f} to {band.high:.1f}", f"fill='{INK}'")
    yield f"<rect x='{LABEL}' y='{top + 5}' width='{long}' height='{BAND - 10}' fill='#f4f4f4'/>"
    yield _bar(band.low, band.high, top + 5, BAND - 10, long, FAINT)
    if band.rate is not None and band.interval is not None:
        yield _bar(*band.interval, round(middle - 2), 4, long, LINE)
        yield f"<circle cx='{LABEL + band.rate * long:.1f}' cy='{middle}' r='5' fill='{LINE}' stroke='#ffffff'/>"
    said = "none tested" if band.rate is None else f"{band.rate:.0%} of {band.tested:,} tested"
    yield text(LABEL + long + 12, round(middle + 4), said, f"fill='{GREY}'")


def _bar(low: float, high: float, top: int, height: int, long: int, colour: str) -> str:
    return f"<rect x='{LABEL + low * long:.1f}' y='{top}' width='{(high - low) * long:.1f}' height='{height}' fill='{colour}'/>"


def text(left: int, base: int, words: str, look: str = "") -> str:
    return f"<text x='{left}' y='{base}' {look}>{escape(NO_XML.sub(' ', words))}</text>"
