# Everything a person needs: `make quickstart` and `make test`. Both install what is missing.
# PYTHON picks the interpreter, VENV the environment, TORCH another build of PyTorch, AT_ONCE how many
# processes share the tests (their threads then wait for work without spinning in each other's way).
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || echo python3)
VENV   ?= .venv
TORCH  ?= torch==2.13.0
AT_ONCE ?= 2
BIN    := $(VENV)/bin

.PHONY: help app web frontend-tools quickstart compare install develop tested-models test test-fast test-all lint reference browser postgres fuzz sanitize screenshots bench lock clean

help:            ## Show what there is to do
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

quickstart: install  ## Fine-tune SmolLM2-135M by QLoRA on Python functions and show what changed
	$(BIN)/etude models pull smollm2-135m
	$(BIN)/etude tune docstrings

compare: install ## The same by QLoRA, LoRA and full fine-tuning, side by side
	$(BIN)/etude models pull smollm2-135m
	$(BIN)/etude tune docstrings --compare

app: $(VENV)/.web ## Open Etude in a browser: practise, papers, runs and models
	$(BIN)/etude up

$(VENV)/.web: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(VENV)/.constraints -e '.[web]'
	touch $@

install: $(VENV)/.installed  ## Make .venv with Etude in it

$(VENV)/.python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	touch $@

# PyTorch first: left to the other packages, pip would take a build with gigabytes of CUDA.
# A PyTorch for CUDA asks for the Triton that it was built with: that one is not held to the lock.
$(VENV)/.constraints: $(VENV)/.python requirements.lock
	grep -v '^triton==' requirements.lock > $@

$(VENV)/.torch: $(VENV)/.python | $(VENV)/.constraints
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(VENV)/.constraints $(TORCH)
	touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(VENV)/.constraints -e '.[practice,papers]'
	touch $@

develop: $(VENV)/.developed  ## Make .venv with what tests and checks need, too

$(VENV)/.developed: $(VENV)/.torch pyproject.toml requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[all]' --group dev
	touch $@ $(VENV)/.installed $(VENV)/.lintable $(VENV)/.web

$(VENV)/.lintable: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(VENV)/.constraints \
	  -e '.[practice,papers,web,images,search,tensorboard,gpu]' --group lint
	touch $@

reference: install  ## Write docs/reference/recipe.md from the keys' own words
	$(BIN)/etude recipe keys --markdown > docs/reference/recipe.md

browser:         ## Install Chromium where the report's tests find none
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	       && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
	  || echo "no Chromium found: install it to run the browser tests"

# The pages are built by people who change them; what is built is committed.
web: frontend-tools  ## Build the styles and scripts of the pages from frontend/src
	npm --prefix frontend run --silent check
	npm --prefix frontend run --silent build

frontend-tools:  ## Install Node and the front end's locked packages where the tests find none
	@command -v npm >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	       && apt-get update -qq && apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null; } \
	  || echo "no Node found: install it to build the pages and to run their tests"
	@if command -v npm >/dev/null; then npm --prefix frontend ci --silent; fi

postgres:        ## Install PostgreSQL where the queue's tests find none
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	       && apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql >/dev/null; } \
	  || echo "no PostgreSQL found: install it to run its tests"

PYTEST := OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n $(AT_ONCE) --dist loadgroup

tested-models: develop
	$(BIN)/etude models pull smollm2-135m
	$(BIN)/etude models pull minilm
	$(BIN)/etude models pull efficientnet-lite0

test: develop browser frontend-tools postgres tested-models  ## Install what is missing and run the tests that cover every promise
	$(PYTEST) -m "not slow"

test-fast: develop  ## Run what takes under three minutes: for each change
	$(PYTEST) -m "not slow and not integration and not weights and not judge and not browser"

test-all: develop browser frontend-tools postgres tested-models  ## Run the long and rare tests as well: for each night
	$(PYTEST) --hypothesis-profile=nightly

lint: $(VENV)/.lintable  ## Style, types and the rules of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

fuzz: develop    ## Compare thousands of random adapters with PEFT in float64 (SEEDS=1000 FROM=0)
	$(BIN)/python -m tests.differential --seeds $(or $(SEEDS),1000) --from $(or $(FROM),0) --keep

# Undefined behaviour ends the process; leaks are Python's own affair.
SANITIZED := CXX="g++ -g -fsanitize=address,undefined -fno-sanitize-recover=all" \
  LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
  ASAN_OPTIONS=detect_leaks=0

sanitize: develop  ## Run the C++ kernels under AddressSanitizer and UBSan: their tests, and the seeds of `fuzz`
	$(SANITIZED) $(BIN)/python -m pytest tests/tuning/kernels/test_native.py
	$(SANITIZED) $(BIN)/python -m tests.differential --seeds $(or $(SEEDS),40) --from $(or $(FROM),0)

screenshots: tested-models browser  ## Take the pictures of the rooms that docs/ shows (INTO=folder: all of them)
	$(BIN)/python -m tests.web.screenshots $(or $(INTO),--docs)

bench: install   ## Measure speed and memory beside TRL + PEFT, and compare with the figures kept
	$(BIN)/etude models pull smollm2-135m
	$(BIN)/python benchmarks/cpu.py
	$(BIN)/python benchmarks/regression.py

bench-tasks: install  ## Tune every text task on public data by every method; three hours, resumable
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(VENV)/.constraints -e '.[text]'
	$(BIN)/etude models pull smollm2-135m
	$(BIN)/etude models pull minilm
	$(BIN)/python benchmarks/tasks.py --write

lock: develop    ## Write the versions in .venv to requirements.lock
	{ echo "# Versions that were tested together; PyTorch is pinned in the Makefile."; \
	  $(BIN)/python -m pip freeze --exclude-editable \
	    | grep -vE '^(torch|pip|setuptools)==' ; } > requirements.lock

clean:           ## Remove the environment and what tools left behind
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist
