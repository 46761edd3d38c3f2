"""Build the site into site/. Warnings are errors, and each link within the site must have its target.

    python -m docs.site

The environment variable SITE_URL is the address at which the site will be found; the sitemap and
the pages' canonical links begin with it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from sphinx.cmd.build import main as sphinx

from docs.site import chapters, estimators, gallery, learners, links, notebooks
from docs.site.chapters import NOTEBOOKS, PAGES, ROOT

STAGE, OUT = ROOT / "build" / "site", ROOT / "site"
"""The pages in Markdown, and the site."""
TRY = ("platforms", "algorithms/index", "estimators/index")


def main() -> int:
    """Build everything. Returns the exit code."""
    notes = notebooks.write()
    shutil.rmtree(STAGE, ignore_errors=True)
    shutil.rmtree(OUT, ignore_errors=True)
    shutil.copytree(ROOT / "docs" / "images", STAGE / "images")
    (STAGE / "notebooks").mkdir()
    for note in notes:
        shutil.copy(note, STAGE / "notebooks")
    pages = staged()
    for name, text in pages.items():
        path = STAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    settings, trees = Path(__file__).parent, ROOT / "build" / "doctrees"
    strict = ["-q", "-W", "--keep-going", "-j", "auto", "-c", str(settings), "-d", str(trees)]
    code: int = sphinx([*strict, str(STAGE), str(OUT)])
    if code:
        return code
    shutil.copytree(STAGE / "images", OUT / "images")  # Sphinx does not see those of tags
    for name in (name for name in pages if name.endswith(".md")):
        shutil.copy(STAGE / name, OUT / name)  # the text of a page lies beside it
    for note in notes:
        shutil.copy(note, OUT / "notebooks")
    (OUT / "llms.txt").write_text(for_language_models(pages), encoding="utf-8")
    (OUT / "sitemap.xml").write_text(sitemap(), encoding="utf-8")
    links.without_dead_anchors(OUT)
    wrong = links.broken(OUT)
    print(*(f"{link} has no target" for link in wrong), sep="\n", file=sys.stderr)
    print(f"site/index.html: {len(list(OUT.rglob('*.html')))} pages, {len(wrong)} broken links")
    return int(bool(wrong))


def staged() -> dict[str, str]:
    """The text of each page, by its path in the site: chapters, generated pages, sources."""
    pages = {PAGES.get(path, path.removeprefix("docs/")): chapters.page(path) for path in chapters.paths()}
    pages |= {f"source/{path}.md": chapters.source_page(path) for path in chapters.sources()}
    pages |= gallery.pages() | learners.pages() | estimators.pages()
    pages["index.md"] += menu()
    return pages


def menu() -> str:
    """The menu at the left, in reading order."""
    others = [PAGES[path].removesuffix(".md") for path in chapters.paths() if path in PAGES]
    parts: Mapping[str, list[str]] = {
        "Try": [*(f"notebooks/{name}" for name in NOTEBOOKS), *TRY],
        **chapters.menu(),
    }
    parts["Further"].extend(name for name in others if name != "index")
    trees = {**parts, "API": ["api/recsys_rl/index"]}
    return "".join(
        f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(names) + "\n```\n"
        for caption, names in trees.items()
    )


def for_language_models(pages: Mapping[str, str]) -> str:
    """llms.txt (llmstxt.org): a list of the pages in Markdown, each with its first sentence."""
    first = pages["index.md"].split("\n\n")
    lines = [first[0], f"> {' '.join(first[1].split())}"]
    parts = {"Try": ["platforms", *TRY[1:]], **chapters.menu()}
    for caption, names in parts.items():
        titles = {name: pages[f"{name}.md"].partition("\n")[0].lstrip("# ") for name in names}
        lines.append(f"## {caption}")
        lines.append("\n".join(f"- [{title}]({name}.md)" for name, title in titles.items()))
    lines.append("## API\n\n- [The public names](api.md)\n- [All names](api/recsys_rl/index.html)")
    return "\n\n".join(lines) + "\n"


def sitemap() -> str:
    """sitemap.xml with the address of each page but those of sources and indices."""
    base = os.environ.get("SITE_URL", "").rstrip("/")
    places = sorted(page.relative_to(OUT).as_posix() for page in OUT.rglob("*.html"))
    urls = "\n".join(
        f"<url><loc>{base}/{place}</loc></url>"
        for place in places
        if not place.startswith(("_", "source/", "genindex", "search", "py-modindex"))
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{urls}\n</urlset>\n'
    )


if __name__ == "__main__":
    sys.exit(main())
