"""The edge: whatever happens is one message and an exit status."""

import os
import signal
import subprocess
import sys

import pytest
from typer.main import get_command_name

from harness import cli
from harness.base.errors import CannotRun, ConfigError, Interrupted

ON_IMPORT = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.argv = ["irqmatrix", "--version"]
from harness.__main__ import main
main()
"""


def main_of(monkeypatch, error):
    def fails():
        raise error

    monkeypatch.setattr(cli, "app_for", lambda arguments: fails)
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ConfigError("bad", path=None), 2, "irqmatrix: bad"),
        (CannotRun("not here"), 3, "irqmatrix: not here"),
        (Interrupted("interrupted"), 130, "irqmatrix: interrupted"),
        (OSError(36, "File name too long", "x"), 2, "irqmatrix: x: File name too long"),
        (ExceptionGroup("g", [PermissionError(13, "no", "y")]), 2, "irqmatrix: y: no"),
        (MemoryError(), 2, "irqmatrix: out of memory"),
        (KeyboardInterrupt(), 130, ""),
    ],
    ids=["mistake", "cannot run", "interrupted", "system", "group", "memory", "ctrl-c"],
)
def test_main_error_is_one_message_and_its_status(monkeypatch, capsys, error, status, said):
    assert main_of(monkeypatch, error) == status
    err = capsys.readouterr().err
    assert err.startswith(said)
    assert err.count("\n") == bool(said)
    assert "Traceback" not in err


def test_main_bug_is_said_once_with_the_file_of_its_details(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main_of(monkeypatch, RecursionError("deep")) == cli.EXIT_BUG
    (kept,) = tmp_path.iterdir()
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "a bug of irqmatrix, not of your input: RecursionError: deep" in err
    assert str(kept) in err
    assert "in fails" in kept.read_text()


def test_main_bug_without_room_for_its_details_shows_them(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    assert main_of(monkeypatch, ValueError("odd")) == cli.EXIT_BUG
    assert "in fails" in capsys.readouterr().err


def test_main_hostile_text_in_an_error_controls_nothing(monkeypatch, capsys):
    main_of(monkeypatch, ConfigError("no \x1b[2J\x07"))
    assert capsys.readouterr().err == "irqmatrix: no \\x1b[2J\\x07\n"


def run(*words, **options):
    argv = [sys.executable, "-m", "harness", *words]
    return subprocess.run(argv, capture_output=False, text=True, check=False, **options)


def test_command_with_closed_output_says_so():
    done = run(*("repro", "--list"), stderr=subprocess.PIPE, preexec_fn=lambda: os.close(1))
    assert done.returncode == 2
    assert done.stderr.startswith("irqmatrix: standard output is closed")
    assert done.stderr.count("\n") == 1


def test_command_with_full_output_says_so():
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        done = run("repro", "--list", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr == "irqmatrix: cannot write to standard output: No space left on device\n"


def test_command_whose_reader_leaves_ends_quietly():
    read, write = os.pipe()
    os.close(read)
    done = run("repro", "--list", stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.stderr == ""


def test_command_interrupted_during_its_imports_ends_quietly():
    done = subprocess.run(
        [sys.executable, "-c", ON_IMPORT], capture_output=True, text=True, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_command_without_a_home_says_so():
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME")}
    code = (
        "import os, pwd, sys\n"
        "pwd.getpwuid = lambda uid: (_ for _ in ()).throw(KeyError(uid))\n"
        "sys.argv = ['irqmatrix', 'images', 'list']\n"
        "from harness.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 2
    assert done.stderr.startswith("irqmatrix: there is no place for the image cache")


def completed(words, shell="bash"):
    """What a shell offers for the last of ``words``."""
    environment = {
        **os.environ,
        "_IRQMATRIX_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    code = "import sys; sys.argv[0] = 'irqmatrix'; from harness.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("irqmatrix re", ["report", "replay", "repro"]),
        ("irqmatrix images b", ["build"]),
        ("irqmatrix run --det", ["--deterministic"]),
    ],
    ids=["commands", "subcommands", "options"],
)
def test_completion_word_begun_is_offered_to_the_shell(words, offered):
    assert completed(words) == offered


def test_completion_shown_is_a_script_that_the_shell_accepts():
    code = "import sys; sys.argv[0] = 'irqmatrix'; from harness.__main__ import main; main()"
    command = f'"{sys.executable}" -c "{code}" --show-completion; true'
    shown = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    check = 'eval "$0"; complete -p irqmatrix'
    accepted = subprocess.run(
        ["bash", "-c", check, shown.stdout], capture_output=True, text=True, check=True
    )
    assert "_irqmatrix_completion irqmatrix" in accepted.stdout


@pytest.mark.parametrize(
    ("arguments", "built"),
    [
        (["vmm", "image"], ["vmm"]),
        (["replay"], ["replay"]),
        (["replai"], None),
        (["--version"], None),
        (["images", "list"], None),
        ([], None),
    ],
    ids=["vmm", "bare", "mistake", "option", "group", "nothing"],
)
def test_command_named_first_is_the_only_one_that_is_built(arguments, built):
    app = cli.app_for(arguments)
    commands = [get_command_name(command.callback.__name__) for command in app.registered_commands]
    assert commands == built or (built is None and app is cli.app)
