# What can be done here: `make help`. Every target that needs the environment makes it first.

PYTHON    ?= python3
VENV      ?= .venv
DATE      ?=
BASERAW   ?= $(PANACEA_BASERAW)
SIDES     ?= uv,orange,red,farred
OUTPUT    ?= runs
ARGS      ?=
SEEDS     ?=
BROWSER_TEST_ROOT ?=
SCENARIO  ?=
ENGINE    ?=
IMAGE     ?= panacea-nb
IMAGE_ARGS ?=
WHEELHOUSE ?=
SIF       ?=
DEMO      := runs/demo
DEMO_DATE := 20250115

BIN  := $(VENV)/bin
RUN  := $(VENV)/.stamp-run
DEV  := $(VENV)/.stamp-dev
LABS := $(VENV)/.stamp-lab
BROWSER := $(VENV)/.stamp-browser

# Only what is in the lock files is installed, each file checked against its hash; errors are shown, chatter is not.
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip -qq install --no-compile
# Programs of the environment find each other by PATH (Parsl starts its interchange by name).
IN_VENV := export PATH="$(abspath $(BIN)):$$PATH";

.DEFAULT_GOAL := help
.PHONY: help install demo test browser-test benchmark fault-test crash-test load-test audit lint reduce report lab check-raw image image-lab \
    image-test sif hpc-test lock clean
.DELETE_ON_ERROR:

help: ## show this list
	@echo "panacea_nb: LRS2 data reduction as executed notebooks. Targets:"; echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST); echo
	@echo "Settings, given as NAME=value: DATE BASERAW SIDES OUTPUT ARGS (reduce, report, check-raw), PYTHON VENV (install),"
	@echo "SEEDS SCENARIO SIDES STRESS=1 README=1 (benchmark; more with ARGS=--help),"
	@echo "ENGINE IMAGE IMAGE_ARGS WHEELHOUSE SIF (image, image-lab, image-test, sif; containers/README.md explains them)"

install: $(RUN) ## make .venv with panacea-nb in it (Python 3.11 or newer)

demo: $(RUN) ## simulate a night, reduce LRS2-B (uv, orange) and print the path of the report
	@if [ ! -d $(DEMO)/raw ]; then \
	    rm -rf $(DEMO)/raw.part && mkdir -p $(DEMO) && \
	    $(BIN)/panacea-nb simulate $(DEMO)/raw.part --date $(DEMO_DATE) --seed 1 --scenario demo --sides uv,orange && \
	    mv $(DEMO)/raw.part $(DEMO)/raw; \
	fi
	@$(IN_VENV) code=0; panacea-nb reduce -d $(DEMO_DATE) -s uv,orange --baseraw $(DEMO)/raw --output $(DEMO) $(ARGS) || code=$$?; \
	page=$(DEMO)/NIGHTS/$(DEMO_DATE)/report/index.html; \
	if [ -f $$page ]; then echo "The report of the night: $(CURDIR)/$$page"; fi; exit $$code

test: $(DEV) ## run the tests (they reduce a simulated night; `ARGS='-m "not slow"'` leaves the long ones out)
	@$(IN_VENV) OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 python -m pytest $(ARGS)

# The reports of the demo, which is made first where it is missing (BROWSER_TEST_ROOT names another output root).
browser-test: $(BROWSER) $(LABS) ## look at the reports in a headless Chromium; pictures in runs/browser-test/ (ARGS goes to pytest)
	@tests/browser/chromium.sh >/dev/null
	@if [ -z "$(BROWSER_TEST_ROOT)" ] && [ ! -d $(DEMO)/NIGHTS ]; then $(MAKE) --no-print-directory demo; fi
	@$(IN_VENV) PYTHONPATH="$(abspath tests):$(abspath $(VENV)/browser)" BROWSER_TEST_ROOT="$(or $(BROWSER_TEST_ROOT),$(DEMO))" \
	    python -m pytest tests/browser $(ARGS)

# SIDES has a default for the other targets; here only what was asked for counts, stress nights have channels of their own.
benchmark: $(DEV) ## simulate fresh nights, reduce them and compare with truth, goals and Panacea (10 min a night)
	@$(IN_VENV) PYTHONPATH=tests python -m benchmarks $(if $(SEEDS),--seeds $(SEEDS)) \
	    $(if $(SCENARIO),--scenario '$(SCENARIO)') $(if $(filter file,$(origin SIDES)),,--sides '$(SIDES)') \
	    $(if $(STRESS),--stress) $(if $(README),--readme) $(ARGS)

lint: $(DEV) ## check the code with ruff
	$(BIN)/ruff check .

fault-test: $(DEV) ## damage a simulated night in every way of tests/faults and see how each reduction ends (ARGS='tar-' some)
	@$(IN_VENV) PYTHONPATH=tests python -m faults $(if $(DOCS),--docs docs/faults.md) $(ARGS)

crash-test: $(DEV) ## kill -9 of driver, workers and kernels at random moments, 200 times (ARGS='--kills 500')
	@$(IN_VENV) PYTHONPATH=tests python -m crash $(ARGS)

load-test: $(DEV) ## a night of 60 exposures an arm and 20 nights in a row: memory, files, processes, disk (ARGS='--exposures 20 --sides uv')
	@$(IN_VENV) PYTHONPATH=tests python -m load $(ARGS)

audit: ## compare the lock files with the known weaknesses of packages (asks PyPI)
	@$(PYTHON) -m venv .venv-audit && .venv-audit/bin/python -m pip -qq install pip-audit && \
	for lock in requirements.lock requirements-lab.lock; do \
	    .venv-audit/bin/pip-audit --require-hashes --disable-pip --strict -r $$lock || exit; \
	done

reduce: $(RUN) ## reduce a night: make reduce DATE=20260115 BASERAW=/data/LRS2 SIDES=orange ARGS='-o NAME'
	@: $(or $(DATE),$(error DATE=YYYYMMDD is missing, as in: make reduce DATE=20260115 BASERAW=/data/LRS2 SIDES=orange))
	@: $(or $(BASERAW),$(error BASERAW is missing: the folder that holds the raw nights (or set PANACEA_BASERAW)))
	@$(IN_VENV) panacea-nb reduce -d $(DATE) -s $(SIDES) --baseraw '$(BASERAW)' --output '$(OUTPUT)' $(ARGS)

report: $(RUN) ## build the report of a reduced night again: make report DATE=20260115 [OUTPUT=runs]
	@: $(or $(DATE),$(error DATE=YYYYMMDD is missing, as in: make report DATE=20260115))
	$(BIN)/panacea-nb report -d $(DATE) --output '$(OUTPUT)' $(ARGS)

lab: $(LABS) ## open JupyterLab on the notebooks (installs it on first use)
	@$(IN_VENV) panacea-nb lab $(ARGS)

check-raw: $(RUN) ## inspect a real mirror and reduce one exposure of it: make check-raw BASERAW=/data/LRS2 [DATE=...] [SIDES=...]
	@: $(or $(BASERAW),$(error BASERAW is missing: the folder that holds the raw nights (or set PANACEA_BASERAW)))
	@$(IN_VENV) date='$(DATE)'; \
	if [ -z "$$date" ]; then \
	    date=$$(ls '$(BASERAW)' | sed -n 's/^\([0-9]\{8\}\)\(\.tar\)\{0,1\}$$/\1/p' | sort | tail -n 1); \
	fi; \
	if [ -z "$$date" ]; then \
	    echo "check-raw: no night (YYYYMMDD or YYYYMMDD.tar) in $(BASERAW)" >&2; exit 2; \
	fi; \
	echo "Night $$date of $(BASERAW)"; \
	panacea-nb inspect -d $$date --baseraw '$(BASERAW)' && \
	panacea-nb reduce -d $$date -s $(SIDES) --baseraw '$(BASERAW)' --output '$(OUTPUT)/check-raw' --first $(ARGS)

# Everything about images: what it needs, it finds or says (containers/build.sh).
BUILD_IMAGE = @ENGINE='$(ENGINE)' IMAGE='$(IMAGE)' IMAGE_ARGS='$(IMAGE_ARGS)' WHEELHOUSE='$(WHEELHOUSE)' SIF='$(SIF)' containers/build.sh

image: ## build the container image panacea-nb with docker or podman (ENGINE= names one)
	$(BUILD_IMAGE) image

image-lab: ## build the image panacea-nb-lab, with JupyterLab in it
	$(BUILD_IMAGE) lab

image-test: ## check the image: packages as in the lock, read-only, any user; and run quick tests in it
	$(BUILD_IMAGE) test

sif: ## make the Apptainer image panacea-nb.sif of it
	$(BUILD_IMAGE) sif

hpc-test: ## test images and batch systems, on a Debian 12 machine of its own, as root
	@code=0; for script in tests/hpc/containers.sh tests/hpc/slurm.sh; do [ ! -f $$script ] || bash $$script || code=1; done; exit $$code

lock: ## write the lock files again from pyproject.toml (maintainers; needs uv)
	@for extra in '' dev lab; do \
	    echo 'setuptools>=77' | uv pip compile -q pyproject.toml - --universal --python-version 3.11 --generate-hashes \
	        --no-emit-index-url --no-emit-find-links --no-annotate --no-strip-extras --custom-compile-command 'make lock' \
	        $${extra:+--extra $$extra -c requirements.lock} -o requirements$${extra:+-$$extra}.lock || exit; \
	done
	@uv pip compile -q tests/browser/requirements.in --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --no-emit-find-links --no-annotate --no-strip-extras --custom-compile-command 'make lock' -c requirements-dev.lock \
	    -o tests/browser/requirements.lock

clean: ## remove .venv, the demo and what tools left; your own runs stay
	rm -rf $(VENV) .venv-audit $(DEMO) build dist *.egg-info .pytest_cache .ruff_cache .coverage .coverage.* htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment -----------------------------------------------------------------------------------------------------
# A stamp is written only after everything has been installed, so an interrupted install is taken up again.

$(VENV)/.stamp-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "panacea_nb needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | head -n 1)." >&2; \
	    echo "Name another one, as in: make install PYTHON=python3.12" >&2; exit 2; }
	@echo "Making $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv --clear $(VENV) >/dev/null 2>&1 || $(PYTHON) -m virtualenv -q --clear $(VENV) 2>/dev/null || { \
	    echo "'$(PYTHON) -m venv' failed. On Debian or Ubuntu: apt install python3-venv; else: pip install virtualenv." >&2; \
	    exit 2; }
	@touch $@

$(RUN): requirements.lock pyproject.toml setup.py | $(VENV)/.stamp-venv
	@echo "Installing panacea-nb and what it needs ..."
	@$(PIP) --require-hashes -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation -e .
	@$(BIN)/python -m panacea_nb.reduce.warmup
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true
	@touch $@

$(DEV): requirements-dev.lock $(RUN)
	@echo "Installing what the tests need ..."
	@$(PIP) --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true
	@touch $@

# A folder beside the environment's own packages: nothing but the browser tests sees it.
$(BROWSER): tests/browser/requirements.lock $(DEV)
	@echo "Installing what the browser tests need ..."
	@$(PIP) --require-hashes --no-deps --upgrade --target $(VENV)/browser -r tests/browser/requirements.lock
	@touch $@

$(LABS): requirements-lab.lock $(RUN)
	@echo "Installing JupyterLab ..."
	@$(PIP) --require-hashes -r requirements-lab.lock
	@touch $@
