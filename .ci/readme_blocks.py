"""Run every bash and python block of the README, as a reader would.

    python .ci/readme_blocks.py [--readme README.md] [--skip-first-shell N]
    python .ci/readme_blocks.py --show-shell N    print the N-th bash block and end

All blocks run in the order of the README and share one scratch copy of the checkout,
so that a later block finds what an earlier one made. A python block is a process of
its own with warnings as errors; if a `text` (or bare) block follows it, with nothing
but blank lines between, its output must be that text: words exactly, numbers to their
last printed digit or one in a thousand, `...` for anything. A bash block runs under
`bash -euo pipefail` with this interpreter's environment first on PATH.

HTML comments right before a block say how it runs here, one directive each:

    <!-- ci: env NAME -->         only where the environment variable NAME is set
    <!-- ci: before COMMAND -->   COMMAND runs first, in bash (makes an input, say)
    <!-- ci: reduced ARGS -->     bash: ARGS are added to each `jaxmetric train` in it
    <!-- ci: instead COMMAND -->  bash: COMMAND runs in the block's place

One line is printed a block. The exit code is 1 if any block failed, 2 if the README
itself is at fault (an unclosed block, an unknown directive).
"""

# ruff: noqa: T201 - it is a command, and prints what it has to say.

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path

_LIMIT_S = 600
_RELATIVE = 1e-3
_FENCE = re.compile(r"^(`{3,}|~{3,})\s*([\w+-]*)")
_COMMENT = re.compile(r"^<!--\s*ci:\s*(\w+)\s+(.*?)\s*-->$")
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_DIRECTIVES = {"bash": {"env", "before", "reduced", "instead"}}
_DIRECTIVES["python"] = {"env", "before"}


class ReadmeError(Exception):
    """The README cannot be read as a sequence of blocks."""


@dataclass
class Block:
    """A fenced block: its first line (1 is the README's first), language and text."""

    line: int
    language: str
    text: str
    directives: dict[str, str] = field(default_factory=dict)
    expected: str | None = None

    @property
    def title(self) -> str:
        """Return the first line of code, for reports."""
        return next((x for x in self.text.splitlines() if x.strip()), "").strip()


def read_blocks(source: str) -> list[Block]:
    """Return the bash and python blocks of a README, with what belongs to each."""
    blocks: list[Block] = []
    directives: dict[str, str] = {}
    previous = None  # The block that only blank lines separate from here.
    lines = source.splitlines()
    i = 0
    while i < len(lines):
        line, number = lines[i].strip(), i + 1
        opening, comment = _FENCE.match(line), _COMMENT.match(line)
        i += 1
        if opening:
            body = []
            while i < len(lines) and lines[i].strip() != opening[1]:
                body.append(lines[i])
                i += 1
            if i == len(lines):
                raise ReadmeError(f"line {number}: the block is never closed")
            i += 1
            language = {"sh": "bash", "shell": "bash", "py": "python"}.get(
                opening[2], opening[2]
            )
            text = textwrap.dedent("\n".join(body)) + "\n"
            if language in _DIRECTIVES:
                previous = Block(number, language, text, directives)
                unknown = set(directives) - _DIRECTIVES[language]
                if unknown:
                    raise ReadmeError(
                        f"line {number}: no directive {sorted(unknown)} for {language}"
                    )
                blocks.append(previous)
            else:
                if language in ("", "text") and previous and not directives:
                    previous.expected = text
                if directives:
                    raise ReadmeError(f"line {number}: this block is never run")
                previous = None
            directives = {}
        elif comment:
            directives = {**directives, comment[1]: comment[2]}
            previous = None
        elif line:
            if directives:
                raise ReadmeError(f"line {number}: no block follows the directive")
            previous = None
    if directives:
        raise ReadmeError("no block follows the last directive")
    return blocks


def difference(printed: str, expected: str) -> str | None:
    """Return how an output differs from the expected text, None if it does not."""
    pattern, wanted = "", []
    for token in re.findall(rf"\.\.\.|{_NUMBER}|\s+|.", expected.strip()):
        if token == "...":
            pattern += ".*?"
        elif re.fullmatch(_NUMBER, token):
            pattern += f"({_NUMBER})"
            wanted.append(token)
        else:
            pattern += r"\s+" if token.isspace() else re.escape(token)
    found = re.fullmatch(pattern, printed.strip(), re.DOTALL)
    if not found:
        return f"printed\n{printed}instead of\n{expected}"
    for want, got in zip(wanted, found.groups(), strict=True):
        if abs(float(got) - float(want)) > _tolerance(want):
            return f"printed {got} where the README has {want}:\n{printed}"
    return None


def _tolerance(number: str) -> float:
    """Return how far a printed number may be off; whole numbers must be equal."""
    mantissa, _, exponent = number.lower().partition("e")
    if "." not in mantissa:
        return 0.0
    last_digit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    # "2." has no digit after the point; its last digit says nothing.
    step = 0.0 if mantissa.endswith(".") else 1.5 * last_digit
    return max(step, _RELATIVE * abs(float(number)))


def copy_checkout(root: Path, target: Path) -> None:
    """Copy what a commit of the checkout would hold (all of it without git)."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=root, capture_output=True, check=False)
    if listing.returncode:
        shutil.copytree(root, target, dirs_exist_ok=True)
        return
    for name in filter(None, os.fsdecode(listing.stdout).split("\0")):
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)


def run_block(block: Block, folder: Path) -> str | None:
    """Run a block in a folder and return what went wrong, None if nothing did."""
    before = block.directives.get("before")
    if before:
        problem, _ = _run(["bash", "-euo", "pipefail", "-c", before], folder)
        if problem:
            return f"the command before it failed\n{problem}"
    if block.language == "bash":
        text = block.directives.get("instead", block.text)
        if "reduced" in block.directives:
            # After the command's name, so that lines may end in comments or pipes.
            reduced = f"jaxmetric train {block.directives['reduced']} "
            text, count = re.subn(r"\bjaxmetric train\b ?", lambda _: reduced, text)
            if not count:
                return "nothing to reduce: there is no `jaxmetric train` in it"
        return _run(["bash", "-euo", "pipefail", "-c", text], folder)[0]
    with tempfile.TemporaryDirectory() as scripts:
        # Not beside the package, or the copy would hide the one that is installed.
        script = Path(scripts) / f"readme_line_{block.line}.py"
        script.write_text(block.text, encoding="utf-8")
        problem, printed = _run([sys.executable, "-W", "error", str(script)], folder)
    if problem or block.expected is None:
        return problem
    return difference(printed, block.expected)


def _run(command: list[str], folder: Path) -> tuple[str | None, str]:
    """Return what went wrong with a command (None: nothing) and what it printed."""
    binaries = str(Path(sys.executable).parent)
    path = binaries + os.pathsep + os.environ.get("PATH", "")
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        printed, complaints = process.communicate(timeout=_LIMIT_S)
    except subprocess.TimeoutExpired:
        # What the shell has started holds the pipes open, so it ends as well.
        os.killpg(process.pid, signal.SIGKILL)
        printed, complaints = process.communicate()
        return f"ran for more than {_LIMIT_S} s\n{printed}{complaints}", printed
    if process.returncode:
        return f"exit {process.returncode}\n{printed}{complaints}", printed
    return None, printed


def main() -> int:
    """Run the blocks and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    root = Path(__file__).resolve().parent.parent
    parser.add_argument("--readme", type=Path, default=root / "README.md")
    parser.add_argument("--skip-first-shell", type=int, default=0, metavar="N")
    parser.add_argument("--show-shell", type=int, metavar="N")
    options = parser.parse_args()
    name = options.readme.name
    try:
        blocks = read_blocks(options.readme.read_text(encoding="utf-8"))
    except (OSError, ReadmeError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    shells = [block for block in blocks if block.language == "bash"]
    if options.show_shell is not None:
        if not 1 <= options.show_shell <= len(shells):
            print(f"{name}: has {len(shells)} bash blocks", file=sys.stderr)
            return 2
        print(shells[options.show_shell - 1].text, end="")
        return 0
    skipped = shells[: options.skip_first_shell]
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy_checkout(root, Path(folder))
        for block in blocks:
            where = f"{name}:{block.line} {block.language:6}"
            needed = block.directives.get("env")
            if any(block is other for other in skipped):
                print(f"{where} skipped: run elsewhere   {block.title}", flush=True)
                continue
            if needed and not os.environ.get(needed):
                print(f"{where} skipped: no {needed}   {block.title}", flush=True)
                continue
            start = time.monotonic()
            problem = run_block(block, Path(folder))
            seconds = time.monotonic() - start
            verdict = "FAILED" if problem else "ok"
            if block.language == "python" and block.expected and not problem:
                verdict += ", output as shown,"
            print(f"{where} {verdict} {seconds:.1f} s   {block.title}", flush=True)
            if problem:
                failed += 1
                print("  | " + problem.rstrip().replace("\n", "\n  | "), flush=True)
    print(f"{name}: {len(blocks)} blocks, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
