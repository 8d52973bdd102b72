# The commands of README.md. Each sets up what it needs in .venv (scripts/setup.sh says how); none needs root, but
# install and uninstall (scripts/install.sh; docs/install.md).
.PHONY: demo test test-compiled lint bench soak corpus mutate install uninstall format clean

SETUP = scripts/setup.sh
BIN = .venv/bin
MUTANTS = 1000000
# What Python compiled once is kept, whatever the environment says: hundreds of tests start the command anew.
export PYTHONDONTWRITEBYTECODE =

demo:          ## replay the incident of 2015 and read the report
	@$(SETUP) run
	@scripts/demo.sh

test:          ## every test that this machine can run; what is skipped says what to install
	@$(SETUP) test
	$(BIN)/python -m pytest -n auto -m "not slow and not live and not alone" -ra
	@# As root also what the daemon does to real packets; last and one at a time what needs the machine for itself.
	@[ "$$(id -u)" != 0 ] || $(BIN)/python -m pytest tests/netns -n auto -m "live and not slow and not alone" -ra
	@[ "$$(id -u)" != 0 ] || $(BIN)/python -m pytest tests/netns -n 0 -m "alone and not slow" -ra

test-compiled: ## the tests again with the packet path compiled, in a copy under build/
	@$(SETUP) lint
	@scripts/test_compiled.sh

lint:          ## ruff (format and lint) and mypy --strict
	@$(SETUP) lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

BENCH =
bench:         ## packets a second, CPU a packet and names found, beside the peers there are; 20 minutes
	@$(SETUP) lint
	$(BIN)/python bench/run.py $(BENCH)

soak:          ## half an hour of everything: does a table or memory grow, does anything pause?
	@$(SETUP) lint
	$(BIN)/python scripts/compile.py --profile --into bench/work/compiled
	$(BIN)/python bench/soak.py --compiled bench/work/compiled

corpus:        ## recall against tshark: make corpus CORPUS=folder (see scripts/coverage.py)
	@$(SETUP) run
	$(BIN)/python scripts/coverage.py $(CORPUS) --misses --extras

DIFFER = 1000000
mutate:        ## a million mutated packets: none may raise or take over 10 ms; pure and compiled must tell the same of them
	@$(SETUP) lint
	$(BIN)/python scripts/mutate.py --packets $(MUTANTS) --processes 2
	$(BIN)/python scripts/compile.py --into build/compiled
	$(BIN)/python scripts/differ.py --captures pcaps
	$(BIN)/python scripts/differ.py --packets $(DIFFER)

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
