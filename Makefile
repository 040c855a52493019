# Needs Python 3.11 or newer, and this file; everything else is installed into .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
VENV := .venv
RUN := $(VENV)/bin/python
WEIGHTS := runs/weights/faces.safetensors
# Processes that share the tests; each takes up to 4 GB. They take files of tests as they stand in
# the folders, so that the small ones of tools/ and viewer/ come last and all end at one time.
JOBS ?= 2
CHROMIUM := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)

# As in `navigan_jax.main`; tests load NumPy before they could say so themselves.
export OPENBLAS_NUM_THREADS ?= 1

# A copy of the lock inside .venv, made last, says that this lock is installed there: where the copy
# equals the lock nothing is installed and no network is asked.
define install
if ! cmp -s $(1) $(VENV)/$(1); then \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: expected Python 3.11 or newer; got '$(PYTHON)';" \
			"run: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }; \
	echo "Installing $(1) into $(VENV) (about a minute, and 1 GB of disk, the first time)."; \
	$(PYTHON) -m venv $(VENV) && \
	$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r $(1) && \
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-index \
		--no-build-isolation --editable . && \
	cp $(2) $(VENV)/; \
fi
endef

.PHONY: help demo demo-faces discover-demo test lint types format clean install install-dev
.NOTPARALLEL:

help:
	@echo "make demo     find, name and show directions of a small generator of cars (into runs/demo)"
	@echo "make demo-faces     the same for faces; downloads 13 MB"
	@echo "make discover-demo  train directions of faces against a reconstructor, ten minutes"
	@echo "make test     run all tests"
	@echo "make lint     check style and formatting"
	@echo "make types    check types"
	@echo "make format   mend style and formatting"
	@echo "make clean    remove caches and .venv, but no results"

# The gallery is drawn again after the factors are known, with the names that these propose.
demo: install
	$(RUN) -m navigan_jax.main --config=configs/demo.py --workdir=runs/demo
	$(RUN) -m navigan_jax.main --config=configs/factors.py --workdir=runs/demo \
		--config.generator=cars --config.directions=runs/demo/directions.safetensors
	$(RUN) -m navigan_jax.main --config=configs/gallery.py --workdir=runs/demo \
		--config.generator=cars --config.directions=runs/demo/directions.safetensors \
		--config.show.steps=9 --config.video.directions=0
	@echo "Pictures in runs/demo: gallery.html (open it in a browser), gallery.png, factors.png,"
	@echo "spectrum.png, animation.gif, figure.pdf."

demo-faces: install
	test -f $(WEIGHTS) || $(RUN) -m tools.convert_weights dcgan faces --out $(WEIGHTS)
	$(RUN) -m navigan_jax.main --config=configs/demo_faces.py --workdir=runs/demo-faces

# The pages are tested in a real browser where there is one; .ci/run installs Debian's.
discover-demo: install
	test -f $(WEIGHTS) || $(RUN) -m tools.convert_weights dcgan faces --out $(WEIGHTS)
	$(RUN) -m navigan_jax.main --config=configs/discover_spectrum.py --workdir=runs/discover-demo/spectrum
	$(RUN) -m navigan_jax.main --config=configs/discover_demo.py --workdir=runs/discover-demo/trained

test: install-dev
	@test -n "$(CHROMIUM)" || \
		echo "No Chromium here: the tests of pages in a browser are left out (apt install chromium)."
	$(RUN) -m pytest --numprocesses=$(JOBS) --dist=loadfile --no-loadscope-reorder --durations=10 \
		$(if $(CHROMIUM),,-m "not browser")

lint: install-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: install-dev
	$(RUN) -m mypy

format: install-dev
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf $(VENV) .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

install:
	@$(call install,requirements.lock,requirements.lock)

# Holds all that requirements.lock holds, in the same versions, so it counts for both.
install-dev:
	@$(call install,requirements-dev.lock,requirements.lock requirements-dev.lock)
