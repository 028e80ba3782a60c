# `make demo` and `make test` set up everything they need: a virtual environment in .venv with pinned versions.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
VOC_ROOT ?= ../shared/voc
VOC_WEIGHTS ?= $(VOC_ROOT)/../weights/tf_efficientnet_lite2.pth
VOC_OUT ?= runs/voc
VOC_LIMIT ?=

.PHONY: help install demo demo-rgb test test-slow chaos hosts lint format check settings docs voc clean

help: ## Print this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/installed ## Make the virtual environment.

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	touch $@

demo: install ## Synthetic images to masks and a report, in a few minutes.
	@echo "Makes 320 synthetic images, trains all networks on them from random numbers, and makes masks, scores and a report:"
	@echo "demo/run/report.html. It takes 2 to 5 minutes on two CPU cores."
	$(BIN)/raypipe synthetic demo/data
	$(BIN)/raypipe run raypipe/recipes/demo.yaml manifest=demo/data/manifest.parquet out=demo/run

demo-rgb: install ## After the demo: the same walk along plain colours, to see what the learned affinity is worth.
	$(BIN)/raypipe evaluate raypipe/recipes/demo.yaml manifest=demo/data/manifest.parquet out=demo/run \
	  walk.affinity=rgb refinement.method=none

test: install ## The test suite.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: install ## Tests that take minutes.
	$(BIN)/python -m pytest -m 'slow and not ceph'

chaos: install ## A full run under random faults, some 10 minutes; SEED="1 2" for those of seeds, ELASTIC=1 for trainings of any width.
	$(BIN)/python benchmarks/chaos.py $(addprefix --seed ,$(SEED)) $(if $(ELASTIC),--elastic)

hosts: install ## Faults between hosts, made of network namespaces: as root, on Linux, a quarter of an hour.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'hosts and not ceph' tests/hosts

lint: install ## Format check, lint, types, import contracts.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file benchmarks/mypy.ini
	$(BIN)/lint-imports

format: install ## Format the code.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: lint test ## All that must pass before a change lands.

settings: install ## Write docs/settings.md anew, after an option's text has changed.
	$(BIN)/python -c "from raypipe.config.reference import settings_page; print(settings_page(), end='')" > docs/settings.md

docs: install ## The documentation as a site, in build/site; a warning is an error.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

voc: install ## PASCAL VOC to masks and scores; VOC_ROOT=..., VOC_LIMIT=n for a quick turn.
	$(BIN)/raypipe import voc $(VOC_ROOT) $(VOC_OUT)/manifest.parquet --labels image_labels.csv $(if $(VOC_LIMIT),--limit $(VOC_LIMIT))
	$(BIN)/raypipe run raypipe/recipes/voc_efficientnet_lite2.yaml manifest=$(VOC_OUT)/manifest.parquet out=$(VOC_OUT) \
	  network.weights=$(VOC_WEIGHTS)

clean: ## Delete the environment and the demo's output.
	rm -rf $(VENV) demo
