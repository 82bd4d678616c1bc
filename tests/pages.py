"""What every page that Foreshock writes must be."""

from __future__ import annotations

import re
from xml.etree import ElementTree


def assert_stands_alone(html: str) -> None:
    """Fetches nothing, runs nothing, links only within itself, and its charts are SVG in the theme's colours."""
    assert "default-src 'none'" in html
    assert not re.search(r"https?:|<script|<link|<img|@import|url\((?!#)", html)
    assert set(re.findall(r'href="#([^"]*)"', html)) <= set(re.findall(r' id="([^"]*)"', html))
    charts = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert charts
    for chart in charts:
        ElementTree.fromstring(chart.replace("<svg", '<svg xmlns:xlink="x"', 1))  # noqa: S314  # our own output
        assert "#0000a" not in chart
