# The commands of README.md. Each sets up what it needs in .venv (scripts/setup.sh says how); none needs root, but
# install and uninstall (scripts/install.sh; docs/install.md).
.PHONY: demo test lint bench corpus mutate install uninstall format clean

SETUP = scripts/setup.sh
BIN = .venv/bin

demo:          ## replay the incident of 2015 and read the report
	@$(SETUP) run
	@scripts/demo.sh

test:          ## every test that this machine can run; what is skipped says what to install
	@$(SETUP) test
	$(BIN)/python -m pytest -n auto -m "not slow" -ra
	@# As root also what the daemon does to real packets, one at a time: fractions of a millisecond need the machine.
	@[ "$$(id -u)" != 0 ] || $(BIN)/python -m pytest tests/netns -n 0 -k live -m "not slow" -ra

lint:          ## ruff (format and lint) and mypy --strict
	@$(SETUP) lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench:         ## packets a second and CPU a packet, against tcpdump and tshark in the same run
	@$(SETUP) test
	$(BIN)/python bench/run.py

corpus:        ## recall against tshark: make corpus CORPUS=folder (see scripts/coverage.py)
	@$(SETUP) run
	$(BIN)/python scripts/coverage.py $(CORPUS) --misses --extras

mutate:        ## a million mutated packets: none may raise, none may take over 10 ms
	@$(SETUP) test
	$(BIN)/python scripts/mutate.py --packets 1000000 --processes 2

install:       ## as a service: user, units, /opt/egressd, /etc/egressd (root; DESTDIR=, PREFIX= for packages)
	@scripts/install.sh install

uninstall:     ## take it away again, but not /etc/egressd and /var
	@scripts/install.sh uninstall

format:
	@$(SETUP) lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv bench/work .hypothesis .mypy_cache .ruff_cache build dist
