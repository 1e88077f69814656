"""Pages that are read off the code and off the results, so that nothing on them goes stale.

`write` makes ``docs/methods/`` and ``docs/api/``, which git ignores; the build calls it first, and tests read what it
would write. Files that begin with an underscore are parts of other pages. Sphinx is not needed.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import _api
import yaml
from _evidence import claim, evidence, measured, step_cost
from _figures import dots
from _markup import before_sections, inline, table, to_markdown

from vicinal import recipes
from vicinal.methods import METHODS, Cost, Method, Needs
from vicinal.settings import Choice, documented, settings_of

DOCS = Path(__file__).parent
ORIGINS = {"paper": "paper", "official-code": "official code", "ours": "ours", "": ""}
PICTURES = {
    "digits-50": ("test error %", "error under PGD %"),
    "digits-1000": ("test error %", "error under PGD %", "error on corrupted images %"),
}
"""Pictures of the tables in ``results/``, by folder: the figures that they show."""
TIMES = "\N{MULTIPLICATION SIGN}"


def generated() -> dict[str, str]:
    """All generated pages, by their path below ``docs/``."""
    found = {"methods/_table.md": method_table(), "methods/_families.md": families(), "methods/_claim.md": claim()}
    found |= {f"methods/{name}.md": method_page(name) for name in METHODS}
    found |= {f"methods/{folder}.svg": dots(measured()[folder], figures) for folder, figures in PICTURES.items()}
    return found | {f"api/{name}": text for name, text in _api.pages().items()}


def write() -> None:
    """Write all generated pages; a file that is as it should be is not touched, one that has no place is removed."""
    pages = generated()
    for folder in ("methods", "api"):
        pages[f"{folder}/.gitignore"] = "*\n"
        (DOCS / folder).mkdir(exist_ok=True)
        for path in (DOCS / folder).iterdir():
            if f"{folder}/{path.name}" not in pages:
                path.unlink()
    for name, text in pages.items():
        path = DOCS / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def when_to_use() -> dict[str, dict[str, str]]:
    """By family, in order: each method's sentences on when to use it.

    Raises:
        ValueError: a method has none or two, or one is there that is no method.
    """
    read = yaml.safe_load((DOCS / "when_to_use.yaml").read_text(encoding="utf-8"))
    found: dict[str, dict[str, str]] = {family["name"]: family["methods"] for family in read["families"]}
    named = [name for methods in found.values() for name in methods]
    wrong = (set(named) ^ set(METHODS)) | {name for name in named if named.count(name) > 1}
    if wrong:
        raise ValueError(f"when_to_use.yaml: every method once, no others: {', '.join(sorted(wrong))}")
    return found


def method_table() -> str:
    """All methods: name and idea; source and passes of a step. For ``docs/methods.md``."""
    rows = [
        [_link(name, "methods/"), inline(_idea(method)), method.source, f"`{method().passes()}`"]
        for name, method in METHODS.items()
    ]
    return table(["method", "idea", "source", "passes of a step"], rows) + "\n"


def families() -> str:
    """The families and their methods, and the pages in that order, for ``docs/methods.md``."""
    found = when_to_use()
    rows = [[family, ", ".join(_link(name, "methods/") for name in methods)] for family, methods in found.items()]
    pages = "\n".join(f"methods/{name}" for methods in found.values() for name in methods)
    return f"{table(['family', 'methods'], rows)}\n\n```{{toctree}}\n:hidden:\n\n{pages}\n```\n"


def method_page(name: str) -> str:
    """One method's page."""
    method = METHODS[name]
    family = next(family for family, methods in when_to_use().items() if name in methods)
    body = before_sections(inspect.getdoc(method) or "").partition("\n")[2]
    source = f"src/{method.__module__.replace('.', '/')}.py"
    command = f"vicinal fit digits --method {name} --labels 50 --output runs/{name}"
    parts = {
        "": f"# {name}\n\n**{inline(_idea(method), _name)}.**\n\n"
        f"Family: {family}. Source: {method.source}. Class: `{method.__name__}` in `{source}`.",
        "Try it": f"```sh\n{command}\n```" if f"digits/{name}" in recipes.names() else "",
        "When to use it": when_to_use()[family][name],
        "Equations": to_markdown(body, _name),
        "What it is built from": _relatives(method),
        "Needs": _needs(method),
        "Cost of a step": _cost(name),
        "Settings": _settings(method),
        "Recipes": _recipes(name),
        "Evidence": evidence(name),
    }
    # The command stands on top, without a heading of its own.
    texts = [
        text.strip() if title in ("", "Try it") else f"## {title}\n\n{text.strip()}"
        for title, text in parts.items()
        if text.strip()
    ]
    return "\n\n".join(texts) + "\n"


def _relatives(method: type[Method]) -> str:
    bases = [base for base in method.__mro__[1:] if issubclass(base, Method) and base is not Method]
    items = []
    for base in bases:
        # A base that is no method of the list has no page of its own: its equations stand here.
        whole = base in method.__bases__ and base not in METHODS.values()
        told = to_markdown(before_sections(inspect.getdoc(base) or ""), _name) if whole else inline(_idea(base)) + "."
        items.append(f"- {_name(base.__name__)}: {told.strip()}".replace("\n", "\n  "))
    text = "\n".join(items) or "A method of its own: it derives from {py:obj}`vicinal.methods.Method` alone."
    built = [_link(name) for name, other in METHODS.items() if method in other.__mro__[1:]]
    return text + (f"\n\nBuilt on it: {', '.join(built)}." if built else "")


def _needs(method: type[Method]) -> str:
    about = documented(Needs)
    lines = [
        f"- `{key}`{'' if value is True else f' = {value}'}: {inline(about[key])}"
        for key, value in method.needs._asdict().items()
        if value
    ]
    text = "\n".join(lines) or "Labelled examples and any network."
    if method.experiment:
        shown = yaml.safe_dump(dict(method.experiment), default_flow_style=None, sort_keys=False, width=100)
        text += f"\n\nExperiments with it start from these settings:\n\n```yaml\n{shown.rstrip()}\n```"
    return text


def _cost(name: str) -> str:
    method = METHODS[name]()
    cost, about = method.passes(), documented(Cost)
    counts = [f"- {count} {TIMES} `{key}`: {inline(about[key])}" for key, count in cost._asdict().items() if count]
    regime = [f"The adversarial search is of {method.regime}."] if method.regime else []
    return "\n\n".join([f"`{cost}` at the default settings:", "\n".join(counts), *regime, *step_cost(name)])


def _settings(method: type[Method]) -> str:
    rows = [
        [f"`{item.name}`", f"`{_plain(item.default)}`", ORIGINS[method.origins.get(item.name, "")], inline(item.help)]
        for item in settings_of(method)
    ]
    if not rows:
        return "It has none of its own."
    told = "On the command line `--method.SETTING VALUE`; *from* says where the default comes from."
    return f"{table(['setting', 'default', 'from', 'meaning'], rows)}\n\n{told}"


def _recipes(name: str) -> str:
    rows = []
    for recipe in map(recipes.get, recipes.names()):
        choice = Choice.of("recipe", recipe.values["method"])
        if choice.name == name:
            told = ", ".join(f"`{key}` {_plain(value)}" for key, value in choice.settings.items()) or "defaults"
            rows.append([f"`{recipe.name}`", ORIGINS[recipe.provenance], told])
    if not rows:
        return "None: start from the defaults."
    shown = table(["recipe", "from", "the method's settings"], rows)
    return f"{shown}\n\n{rows[-1][0].replace('`', '`vicinal recipes show ', 1)} prints one."


def _idea(method: type[Method]) -> str:
    return (inspect.getdoc(method) or "").splitlines()[0].rstrip(".")


def _link(name: str, folder: str = "") -> str:
    return f"[`{name}`]({folder}{name}.md)"


def _name(text: str) -> str:
    """What stands for a name in a docstring: a link to a method's page, to the reference, or the name."""
    for name, method in METHODS.items():
        if method.__name__ == text:
            return f"[`{text}`]({name}.md)"
    return f"{{py:obj}}`{text}`" if re.fullmatch(r"vicinal\.[\w.]+", text) else f"`{text}`"


def _plain(value: object) -> str:
    return "none" if value is None else str(value)
