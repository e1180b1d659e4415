"""Runs the Python section of docs/clients.md as a reader would type it: its shell
commands, then its snippets in order, as one program, against a real daemon."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

from python_client import ROOT, start

PAGE = ROOT / "docs" / "clients.md"
# A page whose snippets are not found any more must not pass.
LEAST = {"sh": 1, "python": 7}


def section(text, title):
    """Its lines, each where it stands in the page; all others blank."""
    inside, lines = False, []
    for line in text.split("\n"):
        if re.match(r"##? ", line):
            inside = line == f"## {title}"
        lines.append(line if inside else "")
    return lines


def blocks(lines, language):
    """The fenced blocks of one language, each line still where it stands, and how many."""
    inside, kept, count = False, [], 0
    for line in lines:
        if line == f"```{language}":
            inside, line, count = True, "", count + 1
        elif line == "```":
            inside = False
        kept.append(line if inside else "")
    assert count >= LEAST[language], f"{count} {language} snippets: has {PAGE.name} changed?"
    return "\n".join(kept), count


def main():
    lines = section(PAGE.read_text(), "Python")
    shell, _ = blocks(lines, "sh")
    python, count = blocks(lines, "python")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        # The reader stands in the repository; what is made must not land in it.
        (folder / "proto").symlink_to(ROOT / "proto")
        path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
        subprocess.run(["bash", "-euo", "pipefail", "-c", shell], cwd=folder, check=True,
                       env={**os.environ, "PATH": path})
        daemon, env = start(folder / "data")
        try:
            os.environ.update(env)
            os.chdir(folder)
            # The lines are those of the page, so a traceback names them.
            exec(compile(python, "docs/clients.md", "exec"), {"__name__": "__main__"})
        finally:
            os.chdir(ROOT)
            daemon.terminate()
            daemon.wait()
    print(f"docs/clients.md: {count} Python snippets do what the page says ... ok")


if __name__ == "__main__":
    main()
