"""Runs command lines of alsys one after another in one process and says of each how it ended; reads and writes JSON.

An audit hook notes whatever would run code of a file: programs, and classes that are unpickled beside those that
reading processes send.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

DANGEROUS = ("os", "posix", "subprocess", "sys", "runpy", "importlib", "shutil")
forbidden: list[str] = []


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Notes what runs code."""
    if event == "subprocess.Popen":
        words = [str(word) for word in arguments[1]]
        if Path(words[0]).name in ("packmol", "uname") or "alsys" in " ".join(words[:4]) or "unshare" in words[0]:
            return
        if words[0] == sys.executable:
            return
        forbidden.append(f"{event} {words[:3]}")
    elif event == "pickle.find_class":
        if arguments[0] in DANGEROUS or tuple(arguments) == ("builtins", "eval"):
            forbidden.append(f"{event} {arguments}")
    elif event in ("os.system", "os.exec"):
        forbidden.append(f"{event} {arguments}")


def operation(argv: list[str]) -> int:
    """What no command does by itself."""
    if argv[0] == "@calculator":
        from alsys import load_calculator

        calculator = load_calculator(argv[1])
        from ase.build import molecule

        atoms = molecule("H2O")
        atoms.calc = calculator
        atoms.get_potential_energy()
        return 0
    from alsys.tracking.outbox import Outbox

    outbox = Outbox.of(argv[1])
    if hasattr(outbox, "mend"):
        outbox.mend()
    items = outbox.pending()
    outbox.refused()
    return 0 if len(items) <= 1 else 1


def run(argv: list[str]) -> dict[str, Any]:
    """One case."""
    from alsys.cli import main
    from alsys.errors import AlsysError

    out, err = io.StringIO(), io.StringIO()
    code: object = None
    trace = ""
    forbidden.clear()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    started, cpu = time.monotonic(), time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            code = operation(argv) if argv[0].startswith("@") else main(argv)
        except AlsysError as error:
            if argv[0].startswith("@"):
                code = error.exit_code
                err.write(f"alsys: {error}\n")
            else:
                trace = traceback.format_exc()
        except SystemExit as error:
            code = error.code
        except BaseException:
            trace = traceback.format_exc()
    wall, cpu = time.monotonic() - started, time.process_time() - cpu
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {
        "code": code, "err": err.getvalue(), "out": out.getvalue()[-300:], "trace": trace[-1500:], "wall_s": wall,
        "cpu_s": cpu, "peak_mb": int(peak.split()[1]) / 1024, "forbidden": list(forbidden),
    }  # fmt: skip


def main() -> None:
    """Cases until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from alsys import load_calculator  # noqa: F401  imported before the first clock starts
    from alsys.campaign import plan  # noqa: F401
    from alsys.cli import importing  # noqa: F401
    from alsys.potentials.architectures import prepare

    prepare()
    sys.addaudithook(watch)
    answers.write(json.dumps({"ready": True}) + "\n")
    answers.flush()
    for line in sys.stdin:
        answers.write(json.dumps(run(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
