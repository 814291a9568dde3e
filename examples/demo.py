"""The whole way in one command: a v2 store, migrated on a local Ray, verified, indexed, and shown.

Every line that begins with `$` is a command that can be typed as it stands.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

MODCHAT = Path(sys.executable).with_name("modchat")


def main(place: Path) -> int:
    """Runs the demo below *place*, which is made anew. Returns the first exit code that is not 0."""
    old, new, back = place / "v2", place / "platform", place / "v2-again"
    if place.exists():
        shutil.rmtree(place)
    place.mkdir(parents=True)
    say("A v2 store with all six generations of writers, and every kind of file")
    run("sample", "--to", old)
    say("What a migration would do (nothing is written)")
    run("migrate", "plan", "--from", old, "--to", new, quiet=True)
    say("Migrate it on Ray, two workers")
    run("migrate", "run", "--from", old, "--to", new, "--workers", "2", "--execute")
    say("Compare both trees with code that shares nothing with the migration")
    run("migrate", "validate", "--from", old, "--to", new)
    say("Build the indices, and look for something")
    run("index", "build", "--base", new)
    run("index", "search", "--base", new, "--limit", "3", "invoice")
    say("And the way back: every file of v2, byte for byte")
    run("migrate", "reverse", "--from", new, "--to", back, "--execute")
    compare(old, back)
    show(new)
    return 0


def say(text: str) -> None:
    sys.stdout.write(f"\n== {text}\n")
    sys.stdout.flush()


def run(*words: str | Path, quiet: bool = False) -> None:
    """Shows and runs one command; ends the demo when it fails."""
    command = [str(word) for word in words]
    sys.stdout.write(f"$ modchat {' '.join(command)}\n")
    sys.stdout.flush()
    ended = subprocess.run([str(MODCHAT), *command], check=False, capture_output=quiet, text=True)
    if quiet:
        sys.stdout.write("\n".join(ended.stdout.splitlines()[:16]) + "\n...\n")
    if ended.returncode not in (0, 1) or (ended.returncode == 1 and not quiet):
        sys.stdout.write(ended.stderr or "")
        sys.exit(ended.returncode)


def compare(old: Path, back: Path) -> None:
    """Every file of the store (locks of 0 bytes excepted) against the one that came back."""
    files = [p for p in sorted(old.rglob("*")) if p.is_file() and not (p.suffix == ".lock" and not p.stat().st_size)]
    same = sum((back / p.relative_to(old)).read_bytes() == p.read_bytes() for p in files)
    sys.stdout.write(f"{same} of {len(files)} files are the same, byte for byte\n")
    if same != len(files):
        sys.exit(1)


def show(new: Path) -> None:
    """One migrated session, and where to look."""
    session = min(new.glob("text_chat/sessions/*/chat_session_*/messages.jsonl"))
    metadata = json.loads(session.with_name("metadata.json").read_bytes())
    messages = [json.loads(line) for line in session.read_text("utf-8").splitlines()]
    say(f"A migrated session: {metadata['title']!r} of {metadata['user_id']}, {metadata['message_count']} messages")
    for message in messages[:4]:
        sys.stdout.write(f"  {message['role']:>9}: {message['content'][:90]}\n")
    say("Where to look")
    sys.stdout.write(
        f"  {new}/text_chat/sessions/     sessions and messages\n"
        f"  {new}/rag/                    documents and vectors\n"
        f"  {new}/.migration/reports/     what the run and the validation found\n"
        "  docs/target.md                          what every file holds\n"
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-data").resolve()))
