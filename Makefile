# Every target is a script that a person may also run by hand. PYTHON chooses the interpreter of .venv.
PYTHON ?= python3

.PHONY: build demo test lint bench clean

build: tools
	$(PYTHON) scripts/environments.py build

demo: build
	.venv/bin/python examples/flags.py

test: tools
	$(PYTHON) scripts/run_tests.py

lint: build
	$(PYTHON) scripts/run_lint.py

bench: build
	.venv/bin/python benchmarks/run.py $(BENCH)

clean:
	rm -rf target .venv .venvs python/ropewalk/_native.*.so

.PHONY: tools
tools:
	@sh scripts/tools.sh $(PYTHON)
