"""The examples in the documentation of the compiled module; pytest itself runs those of the Python modules."""

import doctest

from ropewalk import _native


def test_the_examples_hold() -> None:
    runner = doctest.DebugRunner(optionflags=doctest.ELLIPSIS)
    for example in doctest.DocTestFinder().find(_native):
        runner.run(example)
