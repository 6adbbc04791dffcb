"""The documentation says what the code does: commands, studies, error texts, columns, packages."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from typer.core import TyperGroup
from typer.main import get_command

from tapray.cli import app
from tapray.configfile import merged_variants, parse_config
from tapray.errors import UserError
from tapray.report.tables import RESULT_COLUMNS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHERS = [ROOT / "CHANGELOG.md", *sorted(ROOT.glob("[cd]*er/**/README.md"))]  # cluster and docker
FENCE = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```", re.M | re.S)
GAP = "…"  # in a quoted error text: what differs


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of a page in one language."""
    return [body for _, kind, body in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def shell_lines() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in blocks(page, "bash"):
            yield from ((page.name, line.strip()) for line in block.splitlines() if line.strip())


COMMANDS = sorted({line for _, line in shell_lines() if line.startswith("tapray ")})
TARGETS = sorted({line.split()[1] for _, line in shell_lines() if line.startswith("make ")})
STUDIES = [(page.name, block) for page in PAGES for block in blocks(page, "yaml")]


def parse(line: str) -> tuple[str | None, dict[str, object]]:
    """Parses a command line as the program would, without running it: the command and its parameters."""
    command: Any = program()
    name, rest, context = "tapray", shlex.split(line)[1:], None
    while hasattr(command, "resolve_command"):  # a group of commands
        context = command.make_context(name, list(rest), parent=context)
        name, command, rest = command.resolve_command(context, list(rest))
        assert command is not None
    return name, command.make_context(name, rest, parent=context).params


def leaves(group: TyperGroup, before: str = "tapray") -> Iterator[tuple[str, Any]]:
    """Every command by its whole name."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from leaves(command, f"{before} {name}")
        else:
            yield f"{before} {name}", command


def program() -> TyperGroup:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    return group


@cache
def literals() -> list[str]:
    """Every text in the package's source, with what is filled in as a gap."""
    found = []
    for path in (ROOT / "tapray").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (text := text_of(node)) is not None:
                found.append(text)
    return found


def text_of(node: ast.AST) -> str | None:
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else GAP for part in node.values]
        return " ".join("".join(map(str, parts)).split())
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return " ".join(node.value.split())
    return None


def user_errors() -> Iterator[str]:
    """The texts that are given to UserError where it is raised."""
    for path in (ROOT / "tapray").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "UserError" and node.args:
                text = text_of(node.args[0])
                if text is not None:
                    yield text


def quoted_errors() -> list[str]:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^### `(.+)`$", page, re.M)


def test_there_is_something_to_check() -> None:
    assert len(COMMANDS) > 15
    assert {"demo", "test"} <= set(TARGETS)
    assert len(STUDIES) > 5
    assert len(quoted_errors()) > 50


@pytest.mark.parametrize("line", COMMANDS)
def test_a_shown_command_is_one_that_the_program_takes(line: str) -> None:
    words = shlex.split(line)
    name, parameters = parse(line)
    depth = words.index(str(name)) + 1  # 3 for a command of a group
    given = " ".join(map(str, parameters.values()))
    for word in words[depth:]:
        assert word.startswith("-") or word.rstrip("/") in given


def test_a_wrong_command_would_be_noticed() -> None:
    for line in (
        "tapray run",
        "tapray run a.yaml --nonsense",
        "tapray no_such_command",
        "tapray ui --port x",
    ):
        with pytest.raises(Exception, match=r"Missing|No such|valid integer"):
            parse(line)


def test_every_command_and_option_is_documented() -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    for name, command in leaves(program()):
        assert re.search(rf"{name}\b", page), name
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                assert f"`{parameter.opts[0]}`" in page, (name, parameter.opts)


@pytest.mark.parametrize("target", TARGETS)
def test_a_shown_make_target_exists(target: str) -> None:
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize(("page", "block"), STUDIES)
def test_a_shown_study_parses(page: str, block: str, tmp_path: Path) -> None:
    """A whole study, or some of its sections."""
    data = yaml.safe_load(block)
    if not {"movies", "collection", "simulate"} & set(data):
        data["simulate"] = {}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(data))
    for variant in merged_variants(path).values():
        assert parse_config(variant, where=page)


def test_a_wrong_study_would_be_noticed() -> None:
    with pytest.raises(UserError, match="unknown key"):
        parse_config({"simulate": {}, "splits": {"kind": "movie"}})


def test_shown_studies_of_the_repository_exist() -> None:
    for line in COMMANDS:
        for word in shlex.split(line):
            assert not word.startswith("studies/") or (ROOT / word).is_file(), word


@pytest.mark.parametrize("quoted", quoted_errors())
def test_a_quoted_error_is_in_the_source(quoted: str) -> None:
    text = re.escape(quoted).replace(GAP, ".+")
    assert any(re.search(text, literal) for literal in literals())


def test_every_error_raised_is_explained() -> None:
    explained = [re.escape(quoted).replace(GAP, ".+") for quoted in quoted_errors()]
    raised = [text for text in user_errors() if text.replace(GAP, "").strip()]
    assert len(raised) > 30
    missing = [text for text in raised if not any(re.search(quoted, text) for quoted in explained)]
    # "track … …" and "… and … …" carry texts that are quoted by themselves
    assert [text for text in missing if len(text.replace(GAP, "").split()) > 1] == []


def test_the_configuration_page_is_up_to_date() -> None:
    made = made_configuration()
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert made.render() == page, "run: python docs/make_configuration.py"


def test_no_meaning_is_stale_or_told_twice() -> None:
    made = made_configuration()
    fields = {f"{m.__name__}.{name}" for m in made.SECTIONS.values() for name in m.model_fields}
    fields |= {f"{choice.__name__}.{item.name}" for choice in made.CHOICES for item in choice}
    assert set(made.MEANINGS) <= fields
    assert not set(made.MEANINGS) & set(made.sources())


def made_configuration() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_configuration", ROOT / "docs/make_configuration.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_column_of_the_results_is_defined() -> None:
    page = (ROOT / "docs" / "results_folder.md").read_text(encoding="utf-8")
    section = page.split("### results.csv")[1].split("### trials.csv")[0]
    defined = [
        name
        for row in re.findall(r"^\| (`.+?) \|", section, re.M)
        for name in re.findall(r"`(\w+)`", row.split("|")[0])
    ]
    assert defined == list(dict.fromkeys(defined))
    assert set(defined) == set(RESULT_COLUMNS)


def test_every_direct_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    names = {re.split(r"[\[<>=~! ]", item)[0] for item in wanted}
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| ([\w.-]+) \|", page, re.M)) - {"package"} == names


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_images_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.M)
            assert anchor in {slug(heading) for heading in headings}, target


def slug(heading: str) -> str:
    """The anchor that both mkdocs and code hosts give a plain heading."""
    return re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip())


def test_every_page_is_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text().split("\nnav:")[1]
    assert sorted(re.findall(r": (\w+\.md)$", nav, re.M)) == sorted(page.name for page in PAGES[1:])


def test_no_address_of_a_package_host() -> None:
    for page in [*PAGES, *OTHERS]:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"https?://(?!127\.0\.0\.1)", text), page.name
