"""The page with the curves of learn_task.py."""

import html
import math

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 440, 260, 52, 30, 12

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; color: #222 }
table { border-collapse: collapse } td, th { padding: .2rem .9rem; text-align: right }
td:first-child, th:first-child { text-align: left } tr + tr { border-top: 1px solid #ddd }
figure { display: inline-block; margin: 0 1rem 1rem 0 } svg text { font-size: 12px; fill: #555 }
.grid { stroke: #ddd } .peft { stroke: #e8a33d; stroke-width: 5; fill: none; opacity: .7 }
.peftool { stroke: #1f4e9e; stroke-width: 1.3; fill: none }
"""


def chart(title, lines, is_logarithmic=False):
    """An SVG of lines: class → numbers, one a step from 1."""
    scale = (lambda value: math.log10(max(value, 1e-9))) if is_logarithmic else (lambda v: v)
    numbers = [scale(value) for line in lines.values() for value in line]
    low, high = (math.floor(min(numbers)), math.ceil(max(numbers)))
    low = low if is_logarithmic else 0
    high = max(high, low + 1)
    count = max(len(line) for line in lines.values())

    def x(step):
        return LEFT + (WIDTH - LEFT - 8) * (step - 1) / max(1, count - 1)

    def y(value):
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / (high - low))

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">']
    for mark in range(low, high + 1):
        text = f"1e{mark}" if is_logarithmic else mark
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 8}" y1="{y(mark):.1f}" '
                     f'y2="{y(mark):.1f}"/>'
                     f'<text x="{LEFT - 6}" y="{y(mark) + 4:.1f}" text-anchor="end">{text}</text>')
    for step in (1, (count + 1) // 2, count):
        parts.append(f'<text x="{x(step):.1f}" y="{HEIGHT - 10}" text-anchor="middle">'
                     f'{step}</text>')
    for name, line in lines.items():
        points = " ".join(f"{x(place + 1):.1f},{y(scale(value)):.1f}"
                          for place, value in enumerate(line))
        parts.append(f'<polyline class="{name}" points="{points}"/>')
    parts.append("</svg>")
    return f"<figure><figcaption>{title}</figcaption>{''.join(parts)}</figure>"


def page(example, figures, curves):
    """One HTML page: the figures as a table, and for each method the curves of both."""
    rows = []
    for name, values in figures.items():
        if isinstance(values, dict):
            seconds = f"{values['seconds']:.0f}" if "seconds" in values else ""
            rows.append(f"<tr><td>{name}<td>{values['loss']:.4f}<td>{values['peftool']:.0%}"
                        f"<td>{values['transformers']:.0%}<td>{seconds}</tr>")
    charts = []
    for method, logs in curves.items():
        ours, theirs = ([entry["loss"] for entry in log] for log in logs)
        charts.append("<div>" + chart(
            f"{method}: loss of each step; wide: PEFT, thin: peftool",
            {"peft": theirs, "peftool": ours}) + chart(
            f"{method}: how far the two losses are apart",
            {"peftool": [abs(a - b) for a, b in zip(ours, theirs)]}, is_logarithmic=True)
            + "</div>")
    text = html.escape(example["prompt"] + example["completion"])
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>A task learnt by peftool and by PEFT</title>
<style>{STYLE}</style>
<h1>A task learnt by peftool and by PEFT</h1>
<p>The rows are such as <code>{text}</code>. Both had the same batches, first adapter and settings.
The answers are to rows that were not learnt.
<table><tr><th>trained<th>held-out loss<th>right, peftool<th>right, transformers<th>seconds</tr>
{''.join(rows)}</table>
{''.join(charts)}
</html>
"""
