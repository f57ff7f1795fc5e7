"""`python -m ropewalk`: runs a Python program, unmodified, on ropewalk."""

from __future__ import annotations

import builtins
import concurrent.futures.process
import concurrent.futures.thread
import importlib.machinery
import io
import linecache
import os
import pkgutil
import runpy
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn

import ropewalk
import ropewalk.futures

USAGE = """\
usage: python -m ropewalk [--only PART] SCRIPT [ARGUMENT ...]
       python -m ropewalk [--only PART] -m MODULE [ARGUMENT ...]
       python -m ropewalk [--only PART] -c CODE [ARGUMENT ...]
"""
HELP = """
Runs a Python program, unmodified, on ropewalk: asyncio has ropewalk's event
loop, and concurrent.futures has ropewalk's executors, wait and as_completed.
Everything else is as without `-m ropewalk`.

  SCRIPT          a file, or a folder or zip file with a __main__.py
  -m MODULE       a module or package
  -c CODE         a program given as text
  --only loop     ropewalk's event loop alone
  --only futures  ropewalk's executors, wait and as_completed alone
  -h, --help      print this text

The workers of a process pool are fresh processes, not forks: they do not have
what the program has changed since its start. A program that counts on forks
runs with `--only loop`.
"""


def main() -> None:
    """Run the program that `sys.argv` names; what it raises is raised."""
    parts: tuple[str, ...] = ("loop", "futures")
    run: Callable[[str], None] = run_script
    arguments = sys.argv[1:]
    match arguments:
        case ["--only", "loop" | "futures" as part, *arguments]:
            parts = (part,)
        case ["--only", *_]:
            refuse("--only takes `loop` or `futures`")
    match arguments:
        case ["-h" | "--help", *_]:
            print(USAGE + HELP, end="")
            return
        case ["-c" | "-m" as option]:
            refuse(f"{option} takes an argument")
        case ["-c" | "-m" as option, program, *rest]:
            run = run_code if option == "-c" else run_module
            sys.argv[:] = [option, *rest]
        case []:
            refuse("no program is named")
        case [program, *_] if program.startswith("-"):
            refuse(f"unknown option {program}")
        case [program, *_]:
            sys.argv[:] = arguments
    if "loop" in parts:
        ropewalk.install()
    if "futures" in parts:
        install_futures()
    try:
        run(program)
    except BaseException as error:
        hide_own_frames(error)
        raise


def refuse(message: str) -> NoReturn:
    print(f"{USAGE}error: {message}", file=sys.stderr)
    sys.exit(2)


def install_futures() -> None:
    """Put ropewalk's in the place of what `concurrent.futures` and its modules give."""
    for module, names in (
        (concurrent.futures, ("ThreadPoolExecutor", "ProcessPoolExecutor", "wait", "as_completed")),
        (concurrent.futures.thread, ("ThreadPoolExecutor",)),
        (concurrent.futures.process, ("ProcessPoolExecutor",)),
    ):
        for name in names:
            setattr(module, name, getattr(ropewalk.futures, name))


def run_script(script: str) -> None:
    """As the interpreter: a script's folder comes first in `sys.path`; a folder or zip file stands there itself."""
    path = os.path.join(os.getcwd(), script)
    if pkgutil.get_importer(path) is not None:
        set_first_path(path, even_if_safe=True)
        new_main()
        runpy._run_module_as_main("__main__", alter_argv=False)  # type: ignore[attr-defined]
        return
    try:
        with io.open_code(path) as file:
            code = pkgutil.read_code(file)
            if code is None:
                file.seek(0)
                source = file.read()
    except OSError as error:
        print(f"{sys.executable}: can't open file {path!r}: [Errno {error.errno}] {error.strerror}", file=sys.stderr)
        sys.exit(2)
    set_first_path(os.path.dirname(os.path.realpath(script)))
    main_module = new_main(importlib.machinery.SourceFileLoader("__main__", path))
    main_module.__dict__.update(__file__=path, __cached__=None)
    if code is None:
        code = compile(source, path, "exec", dont_inherit=True)
    exec(code, main_module.__dict__)


def run_code(source: str) -> None:
    set_first_path("")
    if sys.version_info >= (3, 13):
        # The interpreter keeps the lines for tracebacks.
        linecache.cache["<string>"] = (len(source), None, source.splitlines(True), "<string>")
    code = compile(source, "<string>", "exec", dont_inherit=True)
    exec(code, new_main(importlib.machinery.BuiltinImporter).__dict__)


def run_module(name: str) -> None:
    new_main()
    runpy._run_module_as_main(name)  # type: ignore[attr-defined]


def new_main(loader: Any = None) -> types.ModuleType:
    """Put a module in the place of this one."""
    module = types.ModuleType("__main__")
    module.__dict__.update(__loader__=loader, __builtins__=builtins)
    if sys.version_info < (3, 14):
        module.__annotations__ = {}
    sys.modules["__main__"] = module
    return module


def set_first_path(path: str, even_if_safe: bool = False) -> None:
    """Put `path` in the place of the working directory, which `-m ropewalk` has put first unless told not to."""
    safe = sys.flags.isolated or getattr(sys.flags, "safe_path", False)
    if not safe:
        sys.path[0] = path
    elif even_if_safe:
        sys.path.insert(0, path)


def hide_own_frames(error: BaseException) -> None:
    """Have the interpreter print what the program raised without the frames of this file."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == main.__code__.co_filename:
        trace = trace.tb_next
    hook = sys.excepthook

    def print_once(kind: type[BaseException], value: BaseException, _: types.TracebackType | None) -> None:
        sys.excepthook = hook
        hook(kind, value.with_traceback(trace), trace)

    sys.excepthook = print_once


if __name__ == "__main__":
    main()
