"""The site that `make docs` builds: whole, readable from the disk without a network, and as the code is."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest
from mkdocs.config import load_config
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files

from docs.hooks import PAGES, with_links
from docs.make_configuration import PAGE as CONFIGURATION
from docs.make_configuration import configuration_page
from lhcq.cli.main import VERBS, cli
from lhcq.records.events import CONSTITUENT, names_of_jet, schema_of
from tests.deployed import ROOT


def build(to: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", to, *options],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages."""
    place = tmp_path_factory.mktemp("site")
    done = build(place)
    assert done.returncode == 0, done.stderr
    return place


class Page(HTMLParser):
    """What a page names: its anchors, what it links to, and what a browser loads for it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(given["href"])
        self.loads += [given[name] for name in ("src", "data") if name in given]


def test_every_link_leads_to_a_page_and_to_a_place_in_it(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert len(pages) > len(PAGES)
    broken = []
    for path, page in pages.items():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or path.name == "404.html":  # that one is served for any address
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (
                parts.fragment and unquote(parts.fragment) not in pages[target].anchors
            ):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loaded = {link for path in site.rglob("*.html") for link in Page(path).loads}
    assert [link for link in loaded if urlsplit(link).netloc] == []
    styles = "".join(path.read_text("utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", styles) == []


def test_each_page_of_the_checkout_is_one_of_the_site(site: Path) -> None:
    of_docs = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    for name in of_docs | set(PAGES.values()):
        assert (site / name).with_suffix(".html").is_file(), name


def test_a_search_knows_what_stands_in_the_pages(site: Path) -> None:
    script = (site / "search/search_index.js").read_text("utf-8")
    entries = json.loads(script.removeprefix("var __index = "))["docs"]
    assert any("export-adapter" in entry["title"] for entry in entries)
    assert any("soft drop" in entry["text"] and entry["location"] == "dataset.html" for entry in entries)


@pytest.mark.torture  # a browser; all else says most of it
def test_a_search_finds_something_in_a_browser_that_read_the_page_from_the_disk(
    site: Path, tmp_path: Path
) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser here (Debian: apt-get install chromium)")
    done = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"),
            *(
                "--virtual-time-budget=20000",
                "--dump-dom",
                f"{(site / 'howto/laptop.html').as_uri()}?q=lookupcache",
            ),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = re.search(r'(?s)<ol class="md-search-result__list".*?</ol>', done.stdout)
    assert found
    assert "From one machine to a cluster" in html.unescape(found[0])


def test_every_command_is_described_with_its_options_and_its_examples(site: Path) -> None:
    page = (site / "commands.html").read_text("utf-8")
    text = html.unescape(re.sub(r"<[^>]*>", "", page))
    anchors = Page(site / "commands.html").anchors
    for verb in VERBS:
        command = cli.get_command(click.Context(cli), verb)
        assert command is not None
        assert f"lhcq-{verb}" in anchors
        for one in [command, *(command.commands.values() if isinstance(command, click.Group) else ())]:
            options = {name for option in one.params for name in option.opts if name.startswith("--")}
            assert [name for name in options if name not in text] == []
        for example in re.findall(r"(?m)^  (lhcq .*)$", command.epilog or ""):
            assert example in text


def test_the_page_of_the_configuration_is_what_the_code_says() -> None:
    assert CONFIGURATION.read_text("utf-8") == configuration_page(), "make it again: make docs"


def test_every_column_of_a_dataset_is_defined_and_no_other() -> None:
    page = (ROOT / "docs/dataset.md").read_text("utf-8").partition("\n## ")[0]
    defined = {
        name
        for row in re.findall(r"(?m)^\| (`[^|]*) \|", page)
        for name in re.findall(r"`(\w+)`", row.replace("`tau1` ... `tau4`", "`tau1`, `tau2`, `tau3`, `tau4`"))
    }
    schema = schema_of("full", constituents=True)
    assert defined == {*schema.names, *names_of_jet(schema)}
    for index in range(CONSTITUENT.num_fields):
        assert f"`{CONSTITUENT.field(index).name}`" in page


def test_every_variable_that_lhcq_reads_is_told() -> None:
    read = {
        name
        for package in ("lhcq", "tasks")
        for path in (ROOT / package).rglob("*.py")
        for name in re.findall(r"environ(?:\.get\(|\[)\"(LHCQ_[A-Z_]+)\"", path.read_text("utf-8"))
    }
    read |= set(
        re.findall(r"_(?:file|only_line)\(\"(LHCQ_\w+)\"\)", (ROOT / "lhcq/config.py").read_text("utf-8"))
    )
    table = (ROOT / "deploy/README.md").read_text("utf-8")
    assert read
    assert sorted(name for name in read if f"`{name}`" not in table) == []


def linked(markdown: str, uri: str) -> str:
    config = load_config(str(ROOT / "mkdocs.yml"))
    config.plugins._current_plugin = None  # as while MkDocs builds
    return with_links(markdown, uri, config, Files([]))


def test_links_of_the_checkout_become_those_of_the_site() -> None:
    assert linked("[deploy](../deploy/README.md#systemd)", "cluster.md") == "[deploy](deploy.md#systemd)"
    assert linked("[the tutorial](docs/tutorial.md)", "index.md") == "[the tutorial](tutorial.md)"
    assert linked("[README](../../README.md)", "howto/wsl2.md") == "[README](../index.md)"
    assert linked("[the other](slurm.md)", "howto/wsl2.md") == "[the other](slurm.md)"
    assert linked("[results](../benchmarks/results)", "search.md") == "results"
    assert linked("[unit](../deploy/systemd/lhcq-flower.service)", "x.md").endswith("lhcq-flower.service)")
    assert linked("    [not](a-link.md)\n", "x.md") == "    [not](a-link.md)\n"


def test_a_link_that_leads_nowhere_ends_the_build() -> None:
    with pytest.raises(PluginError, match=r"docs/cluster\.md links to \.\./nothing\.md"):
        linked("[there](../nothing.md)", "cluster.md")
