"""What the documents tell a reader to type and to open is there."""

import re
from pathlib import Path

import pytest
import typer.main

from musichal.cli import app

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted((ROOT / "docs").glob("*.md"))


def test_every_command_that_is_mentioned_exists() -> None:
    commands = set(typer.main.get_command(app).commands)
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))
        mentioned = set(re.findall(r"(?:^|[`/\s])musichal ([a-z][a-z-]+)", code))
        assert mentioned <= commands, document.name
        scripted = set(re.findall(r"run\.py ([a-z]+)", code))
        assert scripted <= {"demo", "test", "check"}, document.name


def test_the_readme_has_the_two_commands_and_ci_runs_them() -> None:
    readme, ci = (ROOT / "README.md").read_text(encoding="utf-8"), (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in ("demo", "test"):
        assert f"\npython3 run.py {command} " in readme
        assert f'"$python" run.py {command}' in ci


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert missing == []
