"""The HTML templates beside this file."""

import re
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup


@cache
def html_template(name: str) -> Template:
    """The template `name`, which escapes what it is given and refuses what it is not."""
    environment = Environment(
        loader=PackageLoader("lhcq.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["told"] = told
    return environment.get_template(name)


def told(sentence: object) -> Markup:
    """A sentence as the terminal has it, escaped, with what stands between backticks there as code."""
    parts = re.split(r"`([^`]+)`", str(sentence))  # every second one stood between backticks
    code = Markup("<code>{}</code>")
    return Markup("").join(code.format(part) if at % 2 else part for at, part in enumerate(parts))
