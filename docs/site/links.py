"""Each link of the built site that stays within it must lead to a page, and to an anchor of that page."""

from __future__ import annotations

import re
from functools import cache
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

TARGETS = re.compile(r"""<(?:a|img|link|script|source)\b[^>]*?\s(?:href|src|srcset)=["']([^"']+)["']""")
BACK = re.compile(r'<a class="viewcode-back" href="([^"]+)"')
ENTRY = re.compile(r'(<li><a href="([^"]+)">[^<]*</a></li>)')
ANCHORS = re.compile(r"""\s(?:id|name)=["']([^"']+)["']""")


def broken(site: Path) -> list[str]:
    """ "PAGE: LINK" of each link without a target."""
    found = []
    for page in sorted(site.rglob("*.html")):
        links = dict.fromkeys(TARGETS.findall(page.read_text(encoding="utf-8")))
        found += [f"{page.relative_to(site)}: {link}" for link in links if not leads(page, unescape(link))]
    return found


def without_dead_anchors(site: Path) -> None:
    """Let each way back from a page of sources lead to a page at least, and drop names of no page.

    sphinx.ext.viewcode names a module by any of those that import from it, and then the anchor is not there;
    its list of modules has those of built-in types.
    """
    for page in sorted((site / "_modules").rglob("*.html")):
        text = page.read_text(encoding="utf-8")
        for entry, link in ENTRY.findall(text):
            text = text if leads(page, unescape(link)) else text.replace(entry, "")
        for link in BACK.findall(text):
            if not leads(page, unescape(link)):
                text = text.replace(f'"{link}"', f'"{link.partition("#")[0]}"')
        page.write_text(text, encoding="utf-8")


def leads(page: Path, link: str) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True  # another site, or data in the page
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page.resolve()
    if target.is_dir():
        target = target / "index.html"
    if not target.is_file():
        return False
    anchor = unquote(parts.fragment)
    return not anchor or target.suffix != ".html" or anchor in anchors(target)


@cache
def anchors(page: Path) -> frozenset[str]:
    return frozenset(map(unescape, ANCHORS.findall(page.read_text(encoding="utf-8"))))
