"""`python -m ropewalk`: a program runs as by itself, but for the loop and the executors that it gets."""

import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROGRAMS = dict(
    re.findall(
        r"^## (\w+)\n\n```python\n(.*?)^```$", Path(__file__).with_name("programs.md").read_text("utf-8"), re.M | re.S
    )
)
ENDLESS = [name for name in PROGRAMS if name.startswith("display_date")]
IN_ANY_ORDER = ["dns_probe", "two_io_tasks"]
# By itself it forks while its threads import, and hangs now and then.
FORKS_WITH_THREADS = "mixed_as_completed"

# What differs from run to run.
VARIABLE = re.compile(
    r"(?:\r[-\\|/] thinking!)+"
    r"|0x[0-9a-f]+"
    r"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?"
    r"|\d:\d\d:\d\d(?:\.\d+)?"
    r"|(?<=耗时)[\d.e-]+(?=秒)"
)
LIBRARY_FRAME = re.compile(r'^  File "(?!\S*/program\.py)[^\n]*\n(?:    [^\n]*\n)*', re.M)


@pytest.fixture(autouse=True)
def ctrl_c_is_not_ignored():
    # A test run in the background is told to ignore it, and what it starts would be, too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def start(*command, flags=()):
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    return subprocess.Popen(
        [sys.executable, *flags, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )


def run(*command, flags=()):
    """Returns exit code, output and errors."""
    with start(*command, flags=flags) as process:
        try:
            output, errors = process.communicate(timeout=150)
        finally:
            process.kill()
    # Decoded here, since a pipe in text mode takes the spinner's carriage returns for ends of lines.
    return process.returncode, output.decode(), errors.decode()


def on_ropewalk(*command, flags=()):
    return run("-m", "ropewalk", *command, flags=flags)


def same(*command, flags=()):
    """Runs a program by itself and on ropewalk, and returns what both gave."""
    by_itself = run(*command, flags=flags)
    assert on_ropewalk(*command, flags=flags) == by_itself
    return by_itself


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Writes a program, into the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(text, name="program.py"):
        (tmp_path / name).write_text(text, "utf-8")
        return name

    return write


# --- the programs of the course ---


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in (*ENDLESS, FORKS_WITH_THREADS)])
def test_a_program_of_the_course_gives_what_it_gives_by_itself(name, program):
    results = []
    for runner in (run, on_ropewalk):
        code, *texts = runner(program(PROGRAMS[name]))
        texts = [LIBRARY_FRAME.sub("", VARIABLE.sub("~", text)) for text in texts]
        if name in IN_ANY_ORDER:
            texts = [sorted(text.splitlines()) for text in texts]
        results.append((code, *texts))
    assert results[0] == results[1]
    assert any(results[0][1:])


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_program_of_the_course_ends_by_ctrl_c_as_by_itself(name, program):
    results = []
    for prefix in ([], ["-m", "ropewalk"]):
        with start(*prefix, program(PROGRAMS[name])) as process:
            try:
                seen = set()
                for line in process.stdout:
                    seen.add(VARIABLE.sub("~", line.decode()))
                    if len(seen) == 2:
                        process.send_signal(signal.SIGINT)
                        break
                _, errors = process.communicate(timeout=150)
            finally:
                process.kill()
        *lines, last = errors.decode().splitlines()
        results.append((process.returncode, seen, [line for line in lines if "Warning" in line], last))
    assert results[0] == results[1]
    if sys.version_info < (3, 11) or "generator" not in name:
        assert results[0][:2] == (-signal.SIGINT, {"Loop: 1 Time: ~\n", "Loop: 2 Time: ~\n"})


def test_the_program_of_the_course_that_mixes_threads_and_processes(program):
    code, output, errors = on_ropewalk(program(PROGRAMS[FORKS_WITH_THREADS]))
    assert (code, errors) == (0, "")
    assert sorted(output.splitlines()) == [
        "'data:,another%20process' page is 15 bytes",
        "'data:,another%20thread' page is 14 bytes",
        "'data:,process' page is 7 bytes",
        "'data:,thread' page is 6 bytes",
        "'made-up:' generated an exception: <urlopen error unknown url type: made-up>",
    ]


# --- as by itself ---

LOOK_AROUND = """
import sys, __main__
print(__name__, __file__, sys.argv, sys.path, sorted(vars(__main__)))
print(__spec__ and __spec__.name, __package__, __doc__, type(__loader__))
print(vars(__main__) is globals(), sys.modules["__main__"] is __main__, __builtins__, sys.flags)
"""


@pytest.mark.parametrize("flags", [[], ["-I"], ["-E", "-B"], ["-O", "-X", "dev"]], ids=" ".join)
def test_a_script_sees_itself_its_arguments_and_its_folder(program, tmp_path, flags):
    (tmp_path / "folder").mkdir()
    code, output, _ = same(program(LOOK_AROUND, "folder/program.py"), "-m", "--help", "--only", "", "-", flags=flags)
    assert code == 0
    assert "'folder/program.py', '-m', '--help', '--only', '', '-'" in output


def test_a_script_reached_by_a_link_or_by_the_parent_folder(program, tmp_path):
    (tmp_path / "folder").mkdir()
    program(LOOK_AROUND, "folder/program.py")
    (tmp_path / "link.py").symlink_to("folder/program.py")
    assert f"{tmp_path}/folder" in same("link.py")[1]
    same("./folder/../folder/program.py")
    same(str(tmp_path / "folder/program.py"))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="-P is of 3.11")
def test_a_safe_path_stays_safe(program):
    assert same(program(LOOK_AROUND), flags=["-P"])[0] == 0
    assert same("-c", "import sys; print(sys.path)", flags=["-P"])[0] == 0


def test_a_module_a_package_and_a_submodule(program, tmp_path):
    program(LOOK_AROUND, "module.py")
    (tmp_path / "package").mkdir()
    for name in ("__init__", "__main__", "part"):
        program(f"print({name!r}){LOOK_AROUND}" if name != "__init__" else "", f"package/{name}.py")
    for name in ("module", "package", "package.part"):
        assert same("-m", name, "-c", "--help")[0] == 0
    program("def f():\n    1 / 0\n\nf()", "package/part.py")
    assert same("-m", "package.part")[0] == 1


def test_a_folder_and_a_zip_file_run_their_main(program, tmp_path):
    (tmp_path / "folder").mkdir()
    program(LOOK_AROUND, "folder/__main__.py")
    with zipfile.ZipFile("program.zip", "w") as file:
        file.writestr("__main__.py", LOOK_AROUND)
    for flags in ([], ["-I"]):
        assert same("folder", "-x", flags=flags)[0] == 0
        assert same("program.zip", "-x", flags=flags)[0] == 0


def test_code_on_the_command_line():
    code = "import sys; print(__name__, sys.argv, sys.path[0] == '', sorted(globals()), __spec__, __loader__)"
    assert same("-c", code, "-m", "x")[0] == 0


def test_a_compiled_script(program):
    import py_compile

    compiled = py_compile.compile(program("print(__name__, __file__); 1 / 0"), "program.pyc")
    assert same(compiled)[0] == 1


def test_a_script_says_its_encoding(tmp_path, program):
    program("")
    (tmp_path / "program.py").write_bytes("# coding: latin-1\nprint(ascii('é'))\n".encode("latin-1"))
    assert same("program.py") == (0, "'\\xe9'\n", "")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("def f():\n    1 / 0\n\nf()\n", 1),
        ("print('never')\nx = (\n", 1),
        ("raise SystemExit", 0),
        ("import sys\nsys.exit(7)", 7),
        ("import sys\nsys.exit('a message')", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("import os\nos._exit(3)", 3),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nwhile True: pass", -signal.SIGINT),
        ("try:\n    1 / 0\nexcept Exception as error:\n    raise ValueError(1) from error", 1),
        ("import sys\nsys.excepthook = lambda *error: print('hook', error[:2], error[2].tb_lineno)\n1 / 0", 1),
        ("import sys\ndef hook(*error): raise ValueError\nsys.excepthook = hook\nraise SystemExit(4)", 4),
        ("import atexit\natexit.register(print, 'at exit')\n1 / 0", 1),
        ("import threading\nthreading.Thread(target=lambda: print(end='thread')).start()", 0),
        ("class C:\n    def __del__(self): print('deleted')\nkept = C()", 0),
    ],
)
def test_a_program_ends_as_by_itself(program, text, code):
    assert same(program(text))[0] == code
    if "while" not in text:
        assert same("-c", text)[0] == code


def test_ctrl_c_ends_asyncio_run_as_by_itself(program):
    program("""
import asyncio, os, signal

async def main():
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
    try:
        await asyncio.sleep(600)
    finally:
        print("cleaned up")

asyncio.run(main())
""")
    results = []
    for runner in (run, on_ropewalk):
        code, output, errors = runner("program.py")
        results.append((code, output, LIBRARY_FRAME.sub("", errors)))
    assert results[0] == results[1]
    assert results[0][:2] == (-signal.SIGINT, "cleaned up\n")


def test_what_is_not_there_is_refused_as_by_itself(program, tmp_path):
    (tmp_path / "folder").mkdir()
    for command in (["nothing.py"], ["folder"], ["-m", "nothing"], ["-m", "json.nothing"]):
        assert same(*command)[0] != 0


def test_functions_of_the_program_can_be_pickled_and_sent_to_processes(program):
    name = program("""
import concurrent.futures, multiprocessing, pickle, sys

def double(x):
    return 2 * x

class Thing:
    pass

if __name__ == "__main__":
    assert pickle.loads(pickle.dumps(double)) is double
    assert isinstance(pickle.loads(pickle.dumps(Thing())), Thing)
    for method in ("spawn", "fork", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(method, pool.map(double, [1, 2]), __spec__ and __spec__.name)
    with concurrent.futures.ProcessPoolExecutor(1) as pool:
        print(list(pool.map(double, [3, 4])))
""")
    for command in ([name], ["-m", "program"]):
        code, output, errors = on_ropewalk(*command, flags=["-W", "ignore"])
        assert (code, errors) == (0, "")
        assert re.findall(r"\[.*\]", output) == ["[2, 4]"] * 3 + ["[6, 8]"]


# --- on ropewalk ---

WHAT_IS_THERE = """
import asyncio, concurrent.futures, concurrent.futures.process, sys, warnings
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from concurrent.futures.thread import ThreadPoolExecutor as Same
from ropewalk.asyncio import EventLoop
warnings.simplefilter("ignore")

async def main():
    return type(asyncio.get_running_loop())

loops = {asyncio.run(main()), type(asyncio.new_event_loop())}
asyncio.set_event_loop(asyncio.new_event_loop())
loops.add(type(asyncio.get_event_loop()))
if sys.version_info >= (3, 11):
    with asyncio.Runner() as runner:
        loops.add(runner.run(main()))
print(*(loop is EventLoop for loop in loops))
assert Same is ThreadPoolExecutor
assert concurrent.futures.process.ProcessPoolExecutor is concurrent.futures.ProcessPoolExecutor
things = [ThreadPoolExecutor, concurrent.futures.ProcessPoolExecutor, wait, as_completed]
print(*(thing.__module__.startswith("ropewalk.") for thing in things))
with ThreadPoolExecutor(1) as pool:
    assert wait([pool.submit(pow, 2, 3)]).done.pop().result() == 8
"""


@pytest.mark.parametrize(
    ("only", "loop", "futures"),
    [([], True, True), (["--only", "loop"], True, False), (["--only", "futures"], False, True)],
)
def test_a_program_gets_the_loop_and_the_executors_or_one_of_them(program, only, loop, futures):
    program(WHAT_IS_THERE)
    for command in (["program.py"], ["-m", "program"], ["-c", WHAT_IS_THERE]):
        assert on_ropewalk(*only, *command) == (0, f"{loop}\n{' '.join([str(futures)] * 4)}\n", "")


def test_the_help_fits_a_terminal():
    for option in ("-h", "--help"):
        code, output, errors = on_ropewalk(option)
        assert (code, errors) == (0, "")
        assert max(map(len, output.splitlines())) <= 80
        assert all(word in output for word in ("usage: ", "--only loop", "--only futures", "-m MODULE", "-c CODE"))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "no program is named"),
        (["--only"], "--only takes `loop` or `futures`"),
        (["--only", "tasks", "x.py"], "--only takes `loop` or `futures`"),
        (["--only", "loop"], "no program is named"),
        (["-m"], "-m takes an argument"),
        (["-c"], "-c takes an argument"),
        (["--quickly", "x.py"], "unknown option --quickly"),
    ],
)
def test_bad_arguments_are_refused(arguments, error):
    code, output, errors = on_ropewalk(*arguments)
    assert (code, output) == (2, "")
    assert errors.startswith("usage: ")
    assert errors.endswith(f"\nerror: {error}\n")
