"""A program that asks qemu-arm again and rewrites debian_answers.json.

    python -m tests.programs.refresh_debian ROOT [BEGINNING OF A LINE]

ROOT is the directory that tools/build_programs.py makes. It has to be run as root, where the host executes programs
for ARM by qemu-arm-static (Debian's package qemu-user-static, with binfmt_misc).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.programs.debian_commands import ANSWERS, ENVIRONMENT, Command, answer_of, commands, write_files
from tests.programs.running import TIMEOUT

#: What makes the root directory ready, and begins the program in it.
_MOUNTS = """
root=$0 work=$1; shift
mount -t tmpfs tmpfs "$root/tmp" && mkdir "$root/tmp/work" && mount --bind "$work" "$root/tmp/work" &&
mount -t proc proc "$root/proc" && mount --bind /dev "$root/dev" &&
exec unshare --root="$root" --wd=/tmp/work -- "$@"
"""


def answer(root: str, command: Command) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="programs") as name:
        folder = Path(name).resolve()
        write_files(folder)
        stdin = b"" if command.stdin is None else (folder / command.stdin).read_bytes()
        program, *arguments = command.words
        words = ("unshare", "-m", "sh", "-c", _MOUNTS, root, str(folder), f"/usr/bin/{program}", *arguments)
        done = subprocess.run(words, check=False, input=stdin, capture_output=True, timeout=TIMEOUT, env=ENVIRONMENT)
        return answer_of(done, "/tmp/work")


def main() -> None:
    root, *only = sys.argv[1:]
    answers = json.loads(ANSWERS.read_text()) if ANSWERS.exists() else {}
    kept = {}
    for command in commands():
        wanted = any(command.line.startswith(word) for word in only) if only else command.line not in answers
        kept[command.line] = answer(root, command) if wanted else answers[command.line]
        if wanted:
            print(command.line, kept[command.line])
    ANSWERS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
