"""Small charts as SVG: a histogram of shares, a curve with its interval, an interval's bar."""

from __future__ import annotations

from collections.abc import Sequence

from grpo_ros.nodes.browser.run_state import Success

WIDTH, LEFT, RIGHT = 340, 30, 6
INK, FAINT, RULE = "#c9d1d9", "#8b949e", "#30363d"
GOOD, EVEN, BAD, ACCENT = "#3fb970", "#8b949e", "#e5534b", "#56a8f5"


def histogram(counts: Sequence[int], height: int = 124) -> str:
    """Return bars of counts in bins of 0.1, the last of which is exactly 1."""
    most, base = max([1, *counts]), height - 18
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(counts))
    parts = [_rule(base), _text(LEFT - 6, 16, f"{most}", "end"), _text(LEFT - 6, base, "0", "end")]
    for index, count in enumerate(counts):
        tall = (base - 8) * count / most
        x = LEFT + slot * index
        colour = GOOD if index == len(counts) - 1 else BAD if index == 0 else EVEN
        parts.append(
            f'<rect x="{x + 1.5:.1f}" y="{base - tall:.1f}" width="{slot - 3:.1f}" '
            f'height="{tall:.1f}" rx="1.5" fill="{colour}"/>'
        )
        if index in (0, 5, len(counts) - 1):
            label = "1" if index == len(counts) - 1 else f"{index / 10:g}"
            parts.append(_text(x + slot / 2, height - 4, label, "middle"))
    return _svg(height, parts)


def curve(
    points: Sequence[tuple[int, Success]], rollouts: Sequence[tuple[int, float]], height: int = 150
) -> str:
    """Return success with its interval over environment steps, above what rollouts reach."""
    top, base = 8, height - 18
    last = max([1, *(x for x, _ in points), *(x for x, _ in rollouts)])

    def at(x: float, y: float) -> str:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / last
        return f"{across:.1f},{base - (base - top) * y:.1f}"

    parts = []
    for share in (0.0, 0.5, 1.0):
        y = base - (base - top) * share
        parts += [_rule(y), _text(LEFT - 6, y + 4, f"{share:g}", "end")]
    parts += [_text(LEFT, height - 4, "0", "middle"), _text(WIDTH - RIGHT, height - 4, si(last))]
    if len(rollouts) > 1:
        way = " ".join(at(x, y) for x, y in rollouts)
        parts.append(f'<polyline points="{way}" fill="none" stroke="{EVEN}" opacity="0.8"/>')
    if len(points) > 1:
        over = [at(x, each.high) for x, each in points]
        under = [at(x, each.low) for x, each in reversed(points)]
        way = " ".join(at(x, each.rate) for x, each in points)
        parts += [
            f'<polygon points="{" ".join(over + under)}" fill="{ACCENT}" opacity="0.25"/>',
            f'<polyline points="{way}" fill="none" stroke="{ACCENT}" stroke-width="2"/>',
        ]
    for x, each in points[-1:]:
        across, up = at(x, each.rate).split(",")
        parts.append(f'<circle cx="{across}" cy="{up}" r="3.5" fill="{ACCENT}"/>')
    return _svg(height, parts)


def interval_bar(success: Success, height: int = 14) -> str:
    """Return a bar from 0 to 1 with the rate, and the interval over it."""
    middle = height / 2
    return _svg(
        height,
        [
            f'<rect y="{middle - 3}" width="{WIDTH}" height="6" rx="3" fill="{RULE}"/>',
            f'<rect y="{middle - 3}" width="{WIDTH * success.rate:.1f}" height="6" rx="3" '
            f'fill="{ACCENT}"/>',
            f'<rect x="{WIDTH * success.low:.1f}" y="1" height="{height - 2}" rx="2" '
            f'width="{max(1.0, WIDTH * (success.high - success.low)):.1f}" fill="{ACCENT}" '
            f'opacity="0.35" stroke="{ACCENT}"/>',
        ],
    )


def si(number: float) -> str:
    """Return a number with three digits and a unit prefix, e.g. 0.86 M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.3g}"


def _svg(height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" width="100%" style="display:block">'
        f"{''.join(parts)}</svg>"
    )


def _rule(y: float) -> str:
    return f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" stroke="{RULE}"/>'


def _text(x: float, y: float, text: str, anchor: str = "end") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="11" fill="{FAINT}" '
        f'text-anchor="{anchor}">{text}</text>'
    )
