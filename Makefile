# The commands of this project. Each one sets up what it needs: a virtual environment in .venv, pinned.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LHCQ := LHCQ_WORKSPACE=demo $(BIN)/lhcq
READY := $(VENV)/.ready

.PHONY: setup demo test test-gpu check docs bench bench-gpu bench-gpus bench-quality torture torture-random fuzz test-slurm clean

setup: $(READY)

# torch first: a constraint alone would let pip choose the build that another package asks for.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,generate,dev]'
	touch $(READY)

# The whole pipeline on generated events, from nothing but this checkout to a page to look at.
demo: setup
	@rm -rf demo/events demo/jobs demo/datasets demo/splits demo/baselines demo/runs demo/predictions
	@mkdir -p demo
	@started=$$(date +%s); set -ex; \
	$(LHCQ) run demo; \
	$(LHCQ) status; \
	{ set +x; } 2>/dev/null; \
	echo "the demo took $$(( $$(date +%s) - started )) s"

# In the order of the folders: the long tests first, so that no process is left alone with one. Three processes on two
# cores: what waits for a lease to expire or a worker to start leaves its core to the others.
test: setup
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# What has a meaning on a GPU: everything about the model. With two GPUs, the ranks too.
test-gpu: setup
	$(BIN)/python -c "import torch, sys; sys.exit(not torch.cuda.is_available() and 'no CUDA GPU is visible here')"
	$(BIN)/python -m pytest tests/unit/test_model_*.py

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The pages that are made from the code, and of all pages the site in build/site, which needs no server and no network.
docs: setup
	$(BIN)/python docs/make_api.py
	$(BIN)/python docs/make_configuration.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html"

bench: setup
	$(BIN)/python -m benchmarks

# Training and scoring on the GPU of this machine, and what others train with beside it.
bench-gpu: setup
	$(BIN)/python -m benchmarks.gpu
	$(BIN)/python -m benchmarks.peers

# Training on all GPUs of this machine, against one of them.
bench-gpus: setup
	$(BIN)/python -m benchmarks.gpus

# The tables of docs/results.md: events and trees on the CPUs, trainings on the GPU.
bench-quality: setup
	$(BIN)/python -m benchmarks.quality

# What reads bytes from outside, fed with what it should refuse; prints a table a target, stores it.
fuzz: setup
	$(BIN)/python -m tests.fuzz.fuzz --seed 1 --inputs 50000 --store benchmarks/results/fuzz.json
	$(BIN)/python -m tests.fuzz.jets --seed 1 --store benchmarks/results/fuzz_jets.json

# Every fault there is, one after the other; what a recovery took is stored.
torture: setup
	LHCQ_FAULTS_RESULT=benchmarks/results/faults.json $(BIN)/python -m pytest tests/faults -m ""
	$(BIN)/python -m pytest tests --ignore tests/faults -m torture

# The batch launcher on a real Slurm of this one machine (Debian: slurmctld slurmd slurm-client).
test-slurm: setup
	$(BIN)/python -m pytest tests/faults/test_slurm.py -m ""

# Workers killed at random: make torture-random SEED=1 KILLS=200
SEED ?= 1
KILLS ?= 200
torture-random: setup
	$(BIN)/python -m benchmarks.storm --seed $(SEED) --kills $(KILLS)

clean:
	rm -rf $(VENV) demo lhcq-workspace build dist .mypy_cache .ruff_cache .hypothesis .import_linter_cache .cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
