"""The command line: what it says, and with what status it ends."""

import subprocess
import sys

import pytest

from layerkit import __version__
from layerkit.cli import main


def test_version_and_help(capsys):
    """Both end well; the help of a command shows an example."""
    for arguments, text in ((["--version"], __version__), (["demo", "--help"], "example: layerkit demo")):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 0
        assert text in capsys.readouterr().out


def test_an_error_is_one_line_and_status_1(monkeypatch, capsys):
    """What goes wrong is said without a traceback."""
    monkeypatch.setattr("layerkit.demo.running.PICTURES", "no such folder")
    assert main(["demo"]) == 1
    captured = capsys.readouterr().err
    assert captured.startswith("layerkit demo: ")
    assert "no such folder" in captured
    assert "Traceback" not in captured


def test_ctrl_c_is_status_130(monkeypatch, capsys):
    """An interruption is no error with a traceback."""

    def interrupt(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr("layerkit.demo.run_demo", interrupt)
    assert main(["demo"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_the_module_is_the_command():
    """``python -m layerkit`` is the same door."""
    output = subprocess.run(
        [sys.executable, "-m", "layerkit", "--version"], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == f"layerkit {__version__}"
