"""Runs the generators that it is sent, one a line, and answers with what each did."""

import ast
import gc
import sys

sys.unraisablehook = lambda _: None


class E(Exception):
    """The generators' own error, with a number."""


def name(error: BaseException) -> str:
    match error:
        case E():
            return f"E {error.args[0]}"
        case RuntimeError():
            return str(error).replace("generator", "coroutine", 1)
        case _:
            return type(error).__name__


def started(generator):
    next(generator)
    return generator


def resume(generator, operation):
    match operation:
        case ("next",):
            return f"yielded {next(generator)}"
        case ("send", value):
            return f"yielded {generator.send(value)}"
        case ("throw", error):
            thrown = {"exit": GeneratorExit(), "stop": StopIteration()}.get(error) or E(error)
            return f"yielded {generator.throw(thrown)}"
        case ("close",):
            generator.close()
            return "closed"


def trace(source, operations):
    if sys.version_info < (3, 12) and ("throw", "stop") in operations:
        return []  # a thrown StopIteration did other things then
    log = []
    names = {"E": E, "name": name, "log": log.append, "started": started}
    exec(source, names)
    generator = names["main"]()
    for operation in operations:
        try:
            log.append(resume(generator, operation))
        except StopIteration as stop:
            log.append(f"returned {stop.value}")
        except BaseException as error:
            log.append(f"raised {name(error)}")
    del generator
    gc.collect()  # a frame left in an exception handler is in a cycle
    return log


gc.freeze()
for line in sys.stdin:
    print(" | ".join(trace(*ast.literal_eval(line))), flush=True)
