"""The HTML templates beside this file."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


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
    return environment.get_template(name)
