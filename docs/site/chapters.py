"""The chapters as pages of the site: the menu in the order of README.md, and links that stay inside the site.

The chapters are written for a repository. There a link may lead to a source file or to the log of
experiments. The site has pages of the sources and no log.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1[ ]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s]+)\)")
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md",
         "SECURITY.md": "security.md"}  # fmt: skip
"""Pages of the checkout's root, by their names in the site."""
NOTEBOOKS = ("train_and_judge", "own_log", "own_platform")
"""The files of docs/notebooks/, in the order of the menu."""


def menu() -> dict[str, list[str]]:
    """The chapters of each part of the menu, in the order of the table under "Docs" in README.md."""
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Docs")[2]
    rows = re.findall(r"^\| ([^|]+?) \| (.+) \|$", table, re.MULTILINE)
    parts = {part: re.findall(r"\]\(docs/([\w-]+)\.md\)", row) for part, row in rows}
    return {part.capitalize(): chapters for part, chapters in parts.items() if chapters}


def page(path: str) -> str:
    """The text of a page of the checkout, such as "docs/api.md", as a page of the site."""
    text = (ROOT / path).read_text(encoding="utf-8")
    text = re.sub(r"^<!-- /?table\b.*-->$\n?", "", text, flags=re.MULTILINE)
    text = re.sub(r"<!-- /?figure\b.*?-->", "", text)
    text = re.sub(r'(src|href)="docs/', r'\1="', text)
    folder = posixpath.dirname(path)
    return outside_fences(
        text, lambda prose: LINK.sub(lambda m: link(m[1], m[2], folder), mathematics(prose))
    )


def mathematics(prose: str) -> str:
    """GitHub's second spelling of a formula, dollar and backtick, in the first one."""
    return re.sub(r"\$`([^`]+)`\$", r"$\1$", prose)


def linked(docstring: str) -> str:
    """A docstring, in reStructuredText, with links to the chapters that it names."""
    return re.sub(r"`?docs/([\w-]+)\.md`?", r":doc:`docs/\1.md </\1>`", docstring)


def outside_fences(text: str, change: Callable[[str], str]) -> str:
    """The text after a change of everything that is not in a fenced block."""
    parts, end = [], 0
    for fence in FENCE.finditer(text):
        parts += [change(text[end : fence.start()]), fence.group()]
        end = fence.end()
    return "".join([*parts, change(text[end:])])


def link(words: str, target: str, folder: str) -> str:
    """A link of a page in ``folder`` as a link of the site, whose chapters all lie at its root."""
    if re.match(r"[a-z]+:|#", target):
        return f"[{words}]({target})"
    path, mark, anchor = target.partition("#")
    path = posixpath.normpath(posixpath.join(folder, path))
    if path in PAGES:
        return f"[{words}]({PAGES[path]}{mark}{anchor})"
    if path == "docs/log" or path.startswith("docs/log/"):
        return f'<span class="in-checkout" title="{path} of the repository">{words}</span>'
    if path.startswith("docs/notebooks/"):
        return f"[{words}]({path.removeprefix('docs/').removesuffix('.py')}.ipynb)"
    if path.startswith("docs/"):
        return f"[{words}]({path.removeprefix('docs/')}{mark}{anchor})"
    return f'<a href="{source(path)}">{words}</a>'


def source(path: str) -> str:
    """The address, from the root of the site, of the page of a file or a folder of the checkout."""
    module = path.removesuffix(".py")
    if path == "LICENSE":
        return "source/LICENSE.html"
    if not path.startswith("recsys_rl"):
        return f"source/{path}.html"
    return f"_modules/{module}.html" if path.endswith(".py") else f"api/{module}/index.html"


def sources() -> set[str]:
    """The files and folders outside of docs/ and recsys_rl/ to which chapters link."""
    found = set[str]()
    for path in paths():
        prose = FENCE.sub("", (ROOT / path).read_text(encoding="utf-8"))
        for _, target in LINK.findall(prose):
            name = posixpath.normpath(posixpath.join(posixpath.dirname(path), target.partition("#")[0]))
            if not re.match(r"[a-z]+:|#", target) and not name.startswith(("docs", "recsys_rl")):
                found.add(name)
    return found - {*PAGES}


def paths() -> list[str]:
    """The pages of the checkout that the site shows, in the order of the menu."""
    chapters = [f"docs/{name}.md" for names in menu().values() for name in names]
    return [*(path for path in PAGES if (ROOT / path).is_file()), *chapters]


def source_page(path: str) -> str:
    """A page that shows a file; of a folder, all its files of Python."""
    place = ROOT / path
    files = sorted(place.glob("*.py")) if place.is_dir() else [place]
    languages = {".py": "python", ".sh": "bash"}
    blocks = [f"# {path}\n"]
    for file in files:
        name = file.relative_to(ROOT).as_posix()
        heading = f"## {file.name}\n\n" if place.is_dir() else ""
        code = file.read_text(encoding="utf-8")
        blocks.append(f"{heading}`{name}`\n\n````{languages.get(file.suffix, 'text')}\n{code}````\n")
    return "\n".join(["---\norphan: true\n---", *blocks])
