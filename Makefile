# make test: environment, lint, types, every test but the slow and gpu ones. Needs Python >= 3.11 and nothing else.
#   WORKERS=2: so many tests side by side; by default as many as there are cores, and at most 4.
# make demo: environment, simulated cohort, shards, pre-training, probe, report; minutes. Stopped, it goes on where it was.
#   DEVICES="cuda:0 cuda:1"; DEMO=folder, without spaces.
#   COHORT="--patients 60" TRAINING="optimization.steps=20 optimization.warmup_steps=2" make it smaller, in a new DEMO: a
#   cohort that is there stays as it is, and a run that has begun refuses other settings.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo
DEVICES ?=
WORKERS ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN); echo $$((cores < 4 ? cores : 4)))
COHORT ?= --patients 3000
TRAINING ?=
TRAIN = $(BIN)/python main.py $(if $(DEVICES),--devices $(DEVICES))

.PHONY: test demo install lint types tests clean
.PRECIOUS: $(DEMO)/cohort/cohort.json $(DEMO)/shards/index.json  # whole once they are there; Ctrl-C must not delete them

test: install lint types tests

install: $(VENV)/.installed

$(VENV)/.installed: requirements.txt requirements-dev.txt requirements-reference.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-reference.txt
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

tests: install
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow and not gpu"

demo: $(DEMO)/shards/index.json
	$(TRAIN) --fname configs/jepa/ecg_demo.yaml \
		--set data.root=$(DEMO)/shards logging.folder=$(DEMO)/pretrain $(TRAINING)
	$(TRAIN) --fname configs/probe/ecg_demo.yaml --set init_from=$(DEMO)/pretrain data.root=$(DEMO)/shards \
		rows.scores.oracle=$(DEMO)/cohort/oracle.csv logging.folder=$(DEMO)/probe
	@$(BIN)/python -m tools.report $(DEMO)/pretrain $(DEMO)/probe --output $(DEMO)/report.html

$(DEMO)/cohort/cohort.json: | install
	$(BIN)/python -m tools.simulate ecg --output $(DEMO)/cohort $(COHORT)

$(DEMO)/shards/index.json: $(DEMO)/cohort/cohort.json
	$(BIN)/python -m tools.build_shards ecg --input $(DEMO)/cohort/ecg.npy --table $(DEMO)/cohort/records.csv \
		--source-rate 100 --per-millivolt 1000 --patient-column patient --split-column split --text-column report \
		--label-columns SR SBRAD STACH AF PAC PVC AVB1 RBBB LBBB STEMI_ANT STEMI_INF LVH TINV \
		--meta-columns record age sex --keep-ids --output $(DEMO)/shards

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
