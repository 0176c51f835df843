"""What `mkdocs.yml` has done beside what MkDocs does: pages and files from outside of docs/, and every command.

Pages are written to be read in the checkout as well, so their links are those of the checkout. Here each becomes that
of the site: a page's, or that of a copy of the file; a directory, which the site has not, keeps its name alone.
"""

import posixpath
import re
from pathlib import Path

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from lhcq.cli.main import SECTIONS, cli

ROOT = Path(__file__).resolve().parent.parent

PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "deploy/README.md": "deploy.md",
}
"""Pages outside of docs/, and how the site calls them."""

COPIES = "files"
"""The directory of the site where files are that pages link to."""

COMMANDS = "<!-- commands -->"

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")
_CODE = re.compile(r"(?ms)^```.*?^```|^(?: {4}[^\n]*\n)+|`[^`\n]*\]\([^`\n]*`")
"""Where brackets are no link: a fence, an indented block, words in backticks."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside of docs/."""
    for source, target in PAGES.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The text of a page with links of the site, and all commands where they are asked for."""
    return with_links(_with_commands(markdown), page.file.src_uri, config, files)


def with_links(markdown: str, uri: str, config: MkDocsConfig, files: Files) -> str:
    """The text of the page `uri`, whose links lead to what the site has; files that it lacks are added to `files`."""
    written = next((source for source, target in PAGES.items() if target == uri), f"docs/{uri}")

    def linked(found: re.Match[str]) -> str:
        picture, text, link = found.groups()
        path, hash_, anchor = link.partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return found[0]
        meant = posixpath.normpath(posixpath.join(posixpath.dirname(written), path))
        if not (ROOT / meant).exists():
            raise PluginError(f"{written} links to {link}, and there is no {meant}.")
        if (ROOT / meant).is_dir():
            return text
        here = PAGES.get(meant) or meant.removeprefix("docs/")
        if not meant.startswith("docs/") and meant not in PAGES:
            here = f"{COPIES}/{meant}"
            if files.get_file_from_path(here) is None:
                files.append(File.generated(config, here, abs_src_path=str(ROOT / meant)))
        return f"{picture}[{text}]({posixpath.relpath(here, posixpath.dirname(uri) or '.')}{hash_}{anchor})"

    ends = [(one.start(), one.end()) for one in _CODE.finditer(markdown)]
    pieces, at = [], 0
    for start, end in [*ends, (len(markdown), len(markdown))]:
        pieces += [_LINK.sub(linked, markdown[at:start]), markdown[start:end]]
        at = end
    return "".join(pieces)


def _with_commands(markdown: str) -> str:
    """Sections as `lhcq --help` has them, the commands of each described by mkdocs-click from click's own objects."""
    return markdown.replace(COMMANDS, "\n".join(_section(title) for title in SECTIONS))


def _section(title: str) -> str:
    return f"## {title}\n\n" + "\n".join(_command(verb) for verb in SECTIONS[title])


def _command(verb: str) -> str:
    command = cli.get_command(click.Context(cli), verb)
    if command is None or (command.callback is None and not isinstance(command, click.Group)):
        raise PluginError(f"lhcq {verb} is no command.")
    group = isinstance(command, click.Group)
    module = getattr(command.callback, "__module__", "")
    lines = [
        "::: mkdocs-click",
        f"    :module: {module}",
        "    :command: command",
        f"    :prog_name: lhcq {verb}",
    ]
    lines += ["    :depth: 2", *(["    :list_subcommands: true"] if group else [])]
    return "\n".join([*lines, "", *_example(command), ""])


def _example(command: click.Command) -> list[str]:
    """What `--help` has last."""
    given = [line[2:] for line in (command.epilog or "").splitlines() if line.startswith("  lhcq ")]
    return ["```sh", *given, "```", ""] if given else []
