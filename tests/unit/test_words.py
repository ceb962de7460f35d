"""The words of docs/words.md in everything that a user reads, and the width of its lines."""

import ast
import re
from pathlib import Path

import pytest
from typer.main import get_command

from harness import cli

ROOT = Path(__file__).parents[2]
WORDS = ROOT / "docs/words.md"
COLUMNS = 100


def table(heading):
    """The phrases in the first column of a table of docs/words.md, with the second column."""
    section = WORDS.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return {phrase: row[1].strip() for row in rows for phrase in re.findall(r"`([^`]+)`", row[0])}


INSTEAD = table("Not written")
EXCEPTIONS = re.compile("|".join(map(re.escape, table("Exceptions"))))
FORBIDDEN = re.compile(
    rf"(?<![\w-])(?:{'|'.join(sorted(map(re.escape, INSTEAD), key=len, reverse=True))})(?![\w-])",
    re.IGNORECASE,
)


def found(place, text):
    """Each forbidden phrase in ``text``: where, what it is and what to write instead."""
    text = EXCEPTIONS.sub("", " ".join(text.split()))
    return [
        f"{place}: {phrase!r}: write {INSTEAD[phrase.lower()]}"
        for phrase in FORBIDDEN.findall(text)
    ]


def tracked(*patterns):
    """The files that match one of the patterns, but the list itself."""
    paths = {path for pattern in patterns for path in ROOT.glob(pattern)}
    return sorted(paths - {WORDS})


def paragraphs(path):
    """The paragraphs of a text file by the line in which they begin."""
    number = 1
    for paragraph in path.read_text().split("\n\n"):
        yield f"{path.relative_to(ROOT)}:{number}", paragraph.replace("\n#", "\n")
        number += paragraph.count("\n") + 2


def _is_text(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def strings(source):
    """The string literals of a module, docstrings among them."""
    nodes = list(ast.walk(ast.parse(source)))
    joined = [node for node in nodes if isinstance(node, ast.JoinedStr)]
    others = {id(part) for node in joined for part in node.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield node.lineno, "".join(parts)
        elif _is_text(node) and id(node) not in others:
            yield node.lineno, node.value


def helps(command, name="irqmatrix"):
    """What ``--help`` says of a command, of its options and of its subcommands."""
    yield name, command.help or ""
    yield from ((f"{name} {one.name}", getattr(one, "help", "") or "") for one in command.params)
    for word, one in getattr(command, "commands", {}).items():
        yield from helps(one, f"{name} {word}")


def test_words_in_help_are_those_of_the_list():
    texts = list(helps(get_command(cli.app)))
    assert len(texts) > 50
    assert [problem for place, text in texts for problem in found(place, text)] == []


@pytest.mark.parametrize(
    "pattern", ["*.md", "docs/**/*.md", "images/**/*.md", "configs/*.yaml", "configs/**/*.yaml"]
)
def test_words_in_documents_and_configurations_are_those_of_the_list(pattern):
    texts = [text for path in tracked(pattern) for text in paragraphs(path)]
    assert texts
    assert [problem for place, text in texts for problem in found(place, text)] == []


@pytest.mark.parametrize("folder", ["harness", "userspace_chip"])
def test_words_in_messages_and_docstrings_are_those_of_the_list(folder):
    modules = tracked(f"{folder}/**/*.py")
    texts = [(path, line, text) for path in modules for line, text in strings(path.read_text())]
    assert len(texts) > 500
    assert [
        problem
        for path, line, text in texts
        for problem in found(f"{path.relative_to(ROOT)}:{line}", text)
    ] == []


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("what it costs hangs\n  on the speed", ["hangs on"]),
        ("Nobody is TOLD", ["Nobody", "TOLD"]),
        ("irq 4: nobody cared", []),
        ("the rule lines-told-always, tolden", []),
    ],
    ids=["over lines", "any case", "an exception", "inside other words"],
)
def test_found_text_gives_its_forbidden_phrases(text, phrases):
    assert [problem.split("'")[1] for problem in found("x", text)] == phrases


def class_names():
    """The public classes of harness/ by name, with the modules that define them."""
    found = {}
    for path in tracked("harness/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(path.relative_to(ROOT).as_posix())
    return found


OF_SEVERAL_ROOMS = {
    *("ExpectModel", "FileModel"),  # of YAML files: each reader has its own
    *("Action", "Choice", "Comparison", "Difference", "Member", "Program", "Source"),  # of fuzz/
}


def test_name_of_a_class_means_one_thing():
    names = class_names()
    assert len(names) > 300
    double = {name: where for name, where in names.items() if len(where) > 1}
    assert double.keys() == OF_SEVERAL_ROOMS, "choose a name that says which"


def test_strings_module_gives_messages_and_docstrings():
    source = '"""Module."""\ndef f(x):\n    """Function."""\n    raise ValueError(f"a {x} b" "c")\n'
    assert sorted(strings(source)) == [(1, "Module."), (3, "Function."), (4, "a {} bc")]


def prose(text):
    """The lines of a Markdown text by number, but tables, blocks of code, and links' targets."""
    code = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            code = not code
        elif not code and not line.lstrip().startswith("|"):
            yield number, re.sub(r"\]\([^)]*\)|<?https?://\S+", "", line)


@pytest.mark.parametrize("pattern", ["*.md", "docs/**/*.md", "images/**/*.md"])
def test_lines_of_documents_fit_in_a_hundred_columns(pattern):
    wide = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked(pattern)
        for number, line in prose(path.read_text())
        if len(line) > COLUMNS
    ]
    assert wide == []


def test_prose_text_is_without_tables_code_and_targets():
    text = "a [b](c.md)\n| wide |\n```\ncode\n```\nz"
    assert list(prose(text)) == [(1, "a [b"), (6, "z")]
