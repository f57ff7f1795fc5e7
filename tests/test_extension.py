"""The worked example of `ropewalk-pyo3`: its Rust coroutines are Python generators in all that Python can see."""

from __future__ import annotations

import collections.abc
import gc
import importlib.machinery
import importlib.util
import inspect
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest

from ropewalk.coroutines import getstate

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def strands(tmp_path_factory):
    """The module, built for this interpreter."""
    target = ROOT / "target" / f"extension-{sys.version_info[0]}.{sys.version_info[1]}"
    variables = {"PYO3_PYTHON": sys.executable, "PYO3_BUILD_EXTENSION_MODULE": "1", "CARGO_TARGET_DIR": str(target)}
    command = ["cargo", "build", "--quiet", "--locked", "--package", "strands"]
    if sys.platform == "darwin":
        variables["RUSTFLAGS"] = "-Clink-arg=-undefined -Clink-arg=dynamic_lookup"
    subprocess.run(command, cwd=ROOT, env=os.environ | variables, check=True)
    library = next(path for path in (target / "debug").glob("libstrands.*") if path.suffix in {".so", ".dylib"})
    loader = importlib.machinery.ExtensionFileLoader("strands", str(library))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("strands", loader))
    loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def no_garbage_left():
    """Lets go of cyclic garbage: a later test may collect it on another thread, where that is an error."""
    yield
    gc.collect()


@pytest.fixture
def unraisable(monkeypatch):
    """What went to `sys.unraisablehook`, as text."""
    reported: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: reported.append(str(args.exc_value)))
    return reported


def test_it_is_an_iterator(strands):
    assert list(strands.countdown(3)) == [3, 2, 1]


def test_it_looks_like_a_generator(strands):
    generator = strands.countdown(1)
    assert isinstance(generator, collections.abc.Generator)
    assert iter(generator) is generator
    assert (generator.__name__, generator.__qualname__) == ("countdown", "countdown")
    assert repr(generator) == f"<generator object countdown at {id(generator):#x}>"


def test_inspect_tells_its_state(strands):
    generator = strands.countdown(2)
    states = [(inspect.getgeneratorstate(generator), getstate(generator), generator.gi_running)]
    next(generator)
    states.append((inspect.getgeneratorstate(generator), getstate(generator), generator.gi_running))
    generator.close()
    states.append((inspect.getgeneratorstate(generator), getstate(generator), generator.gi_running))
    assert states == [
        ("GEN_CREATED", "CREATED", False),
        ("GEN_SUSPENDED", "SUSPENDED", False),
        ("GEN_CLOSED", "CLOSED", False),
    ]


def test_while_it_runs_it_is_running_and_takes_no_resume(strands):
    seen = []

    def write(line):
        seen.append((line, generator.gi_running, inspect.getgeneratorstate(generator)))
        for resume in (lambda: next(generator), lambda: generator.send(1), generator.close):
            with pytest.raises(ValueError, match="generator already executing"):
                resume()

    generator = strands.log(write)
    next(generator)
    generator.send("a line")
    assert seen == [("a line", True, "GEN_RUNNING")]
    generator.close()


def test_send_reaches_the_yield(strands):
    generator = strands.averager()
    assert next(generator) is None
    assert [generator.send(10), generator.send(30), generator.send(5)] == [10.0, 20.0, 15.0]


def test_send_before_the_start_is_a_type_error(strands):
    generator = strands.averager()
    with pytest.raises(TypeError, match="can't send non-None value to a just-started generator"):
        generator.send(10)
    assert generator.send(None) is None
    assert generator.send(10) == 10.0


def test_a_value_of_the_wrong_type_is_raised_at_the_yield_and_ends_it(strands):
    generator = strands.averager()
    next(generator)
    with pytest.raises(TypeError, match="str"):
        generator.send("spam")
    assert inspect.getgeneratorstate(generator) == "GEN_CLOSED"
    with pytest.raises(StopIteration):
        generator.send(60)


def test_the_return_value_is_that_of_stop_iteration(strands):
    generator = strands.averager()
    next(generator)
    generator.send(4)
    with pytest.raises(StopIteration) as stop:
        generator.send(None)
    assert stop.value.value == 4.0
    with pytest.raises(StopIteration) as stop:
        next(generator)
    assert stop.value.value is None


def test_a_handled_throw_gives_the_next_value(strands):
    generator = strands.averager()
    next(generator)
    generator.send(10)
    assert generator.throw(ValueError("start anew")) is None
    assert generator.send(2) == 2.0


def test_an_unhandled_throw_is_the_same_exception_and_ends_it(strands):
    for error in (KeyError("lost"), GeneratorExit("early")):
        generator = strands.averager()
        next(generator)
        with pytest.raises(type(error)) as caught:
            generator.throw(error)
        assert caught.value is error
        assert inspect.getgeneratorstate(generator) == "GEN_CLOSED"


def test_throw_takes_a_class_or_an_instance(strands):
    def throw(*arguments):
        with pytest.raises(BaseException) as caught:  # noqa: PT011
            strands.averager().throw(*arguments)
        return caught.value

    assert throw(KeyError).args == ()
    assert throw(KeyError, "key").args == ("key",)
    assert throw(KeyError, ("a", "b")).args == ("a", "b")
    error = KeyError("own")
    assert throw(KeyError, error) is error
    traceback = None
    try:
        raise LookupError
    except LookupError as raised:
        traceback = raised.__traceback__
    assert throw(KeyError, None, traceback).__traceback__.tb_next is not None
    assert str(throw(3)) == "exceptions must be classes or instances deriving from BaseException, not int"
    assert str(throw(error, "value")) == "instance exception may not have a separate value"


def test_a_thrown_stop_iteration_becomes_a_runtime_error(strands):
    generator = strands.averager()
    next(generator)
    stop = StopIteration(5)
    with pytest.raises(RuntimeError, match="generator raised StopIteration") as caught:
        generator.throw(stop)
    assert caught.value.__cause__ is stop


def test_close_lets_it_clean_up(strands):
    lines = []
    generator = strands.log(lines.append)
    next(generator)
    generator.send("one")
    generator.close()
    generator.close()
    assert lines == ["one", "closed"]


def test_close_gives_the_value_from_3_13_on(strands):
    generator = strands.countdown(3)
    next(generator)
    assert generator.close() == ("stopped at 3" if sys.version_info >= (3, 13) else None)
    assert strands.countdown(3).close() is None


def test_dropping_closes(strands):
    lines = []
    generator = strands.log(lines.append)
    next(generator)
    del generator
    assert lines == ["closed"]


def test_an_error_when_dropped_goes_to_the_unraisable_hook(strands, unraisable):
    def write(line):
        raise OSError(f"no room for {line!r}")

    generator = strands.log(write)
    next(generator)
    del generator
    assert unraisable == ["no room for 'closed'"]


def test_dropping_it_leaves_the_exception_under_way_alone(strands):
    def failing():
        generator = strands.log(lambda line: None)
        next(generator)
        raise KeyError("under way")

    with pytest.raises(KeyError, match="under way"):
        failing()


def test_python_delegates_to_it(strands):
    def outer():
        result = yield from strands.averager()
        return f"average {result}"

    generator = outer()
    next(generator)
    assert generator.send(1) == 1.0
    assert generator.throw(ValueError) is None
    assert generator.send(7) == 7.0
    with pytest.raises(StopIteration, match=r"average 7\.0"):
        generator.send(None)


def test_closing_a_python_delegator_closes_it(strands):
    lines = []

    def outer():
        yield from strands.log(lines.append)

    generator = outer()
    next(generator)
    generator.close()
    assert lines == ["closed"]


def test_it_delegates_to_python(strands):
    def echo():
        received = yield "first"
        while received is not None:
            try:
                received = yield received
            except ValueError as error:
                received = yield f"handled {error}"
        return "returned"

    generator = strands.chain(echo(), "ab", echo())
    assert next(generator) == "first"
    assert generator.send(1) == 1
    assert generator.throw(ValueError("this")) == "handled this"
    assert [generator.send(None), next(generator), next(generator)] == ["a", "b", "first"]
    with pytest.raises(StopIteration) as stop:
        next(generator)
    assert stop.value.value == ["returned", None, "returned"]


def test_closing_it_closes_the_python_generator_that_it_delegates_to(strands):
    seen = []

    def cleaning():
        try:
            yield
        except GeneratorExit:
            seen.append("exit")
            raise

    generator = strands.chain(cleaning())
    next(generator)
    generator.close()
    assert seen == ["exit"]


def test_what_a_python_generator_raises_goes_through_it(strands):
    def failing():
        yield
        raise LookupError("deep down")

    generator = strands.chain(failing())
    next(generator)
    with pytest.raises(LookupError, match="deep down"):
        next(generator)


def test_sending_to_a_plain_iterator_is_an_attribute_error(strands):
    generator = strands.chain([1, 2])
    next(generator)
    with pytest.raises(AttributeError, match="send"):
        generator.send("value")


def test_delegating_to_what_cannot_be_iterated_is_a_type_error(strands):
    with pytest.raises(TypeError, match="not iterable"):
        next(strands.chain(5))


def test_a_chain_of_both_languages(strands):
    def python(sub):
        return (yield from sub)

    generator = strands.averager()
    for _ in range(5):
        generator = strands.chain(python(generator))
    next(generator)
    assert [generator.send(3), generator.send(5)] == [3.0, 4.0]
    with pytest.raises(StopIteration) as stop:
        generator.send(None)
    assert stop.value.value == [[[[[4.0]]]]]


def test_rust_delegates_to_rust(strands):
    results = {}
    for key, values in {"boys": [1, 2, 3], "girls": [4, 5]}.items():
        group = strands.grouper(results, key)
        next(group)
        for value in values:
            group.send(value)
        group.send(None)
    assert results == {"boys": (6.0, 3), "girls": (9.0, 2)}


def test_a_cycle_through_what_it_holds_is_collected(strands):
    class Writer:
        def __call__(self, line):
            lines.append(line)

    lines: list[str] = []
    writer = Writer()
    writer.generator = strands.log(writer)
    next(writer.generator)
    gone = weakref.ref(writer)
    del writer
    gc.collect()
    assert gone() is None
    assert lines == ["closed"]


def test_a_cycle_through_a_generator_that_it_delegates_to_is_collected(strands):
    class Own:
        pass

    def sub(own):
        yield own

    own = Own()
    own.generator = strands.chain(sub(own))
    next(own.generator)
    gone = weakref.ref(own)
    del own
    gc.collect()
    assert gone() is None


def test_what_it_holds_is_not_collected_while_it_lives(strands):
    lines = []

    def generator():
        made = strands.log(lambda line: lines.append(line))
        next(made)
        return made

    made = generator()
    gc.collect()
    made.send("still there")
    made.close()
    assert lines == ["still there", "closed"]


def test_on_another_thread_it_raises_runtime_error(strands):
    generator = strands.countdown(2)
    next(generator)
    errors = []

    def resume():
        for call in (
            lambda: next(generator),
            lambda: generator.send(None),
            lambda: generator.throw(KeyError),
            generator.close,
            lambda: generator.gi_running,
        ):
            try:
                call()
            except RuntimeError as error:
                errors.append(str(error))
        gc.collect()

    thread = threading.Thread(target=resume)
    thread.start()
    thread.join()
    assert errors == ["generator 'countdown' belongs to another thread"] * 5
    assert next(generator) == 1


def test_dropped_on_another_thread_it_is_leaked_and_reported(strands, unraisable):
    lines = []
    generators = [strands.log(lines.append)]
    next(generators[0])
    thread = threading.Thread(target=generators.clear)
    thread.start()
    thread.join()
    assert unraisable == ["generator 'log' was dropped on another thread than its own: leaked"]
    assert lines == []


def test_an_open_one_at_interpreter_exit_is_no_trouble(strands):
    program = f"""
import importlib.machinery, importlib.util
loader = importlib.machinery.ExtensionFileLoader("strands", {strands.__spec__.origin!r})
strands = importlib.util.module_from_spec(importlib.util.spec_from_loader("strands", loader))
loader.exec_module(strands)
generator = strands.log(print)
next(generator)
generator.send("sent")
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout.startswith("sent\n")
    assert "Traceback" not in run.stderr
