# `make` lists the targets. Every one sets up what it needs first, which takes no time when nothing changed.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-kilted campaign fuzz check format parity evaluate evaluate-tracks benchmark gpu-check gpu-pack gpu-results lock audit docs docker-build docker-pin clean

# Run inside the set-up environment, whatever the caller's shell has.
in_env := . ./env.sh &&
# A worker more than there are cores, none where a few tests are asked for (tests/workers.py); ARGS="-n 0" means none.
pytest_options := -ra -n auto --dist worksteal

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Only files that requirements/lock/ names, whatever index they come from.
install_locked := python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --require-hashes --only-binary :all:

# Ray and what belongs to it, 700 MB that only tests need.
install_for_cluster := { $(install_locked) -r requirements/lock/cluster.txt || \
	  echo "test: Ray, s3fs and pyarrow cannot be installed here: their tests skip" >&2; };

setup: ## install and build everything into .venv and ros2_ws (PYTHON=..., TORCH_BUILD=cpu|cuda|none, ROS_WHEELS=jazzy|kilted)
	@scripts/setup.sh

demo: setup ## play a sequence through the node, report and draw what comes out (SOURCE=folder, video or bag)
	@$(in_env) python -m feature_frontend demo --output demo_output $(if $(SOURCE),--source "$(SOURCE)")

test: setup ## run every test; skips say why (ARGS=... goes to pytest)
	@$(in_env) $(install_for_cluster) python -m pytest $(pytest_options) $(ARGS)

test-kilted: setup ## a short part of the DDS tests on ROS 2 Kilted, beside Jazzy from wheels (ARGS="..." for other tests)
	@scripts/test_kilted.sh $(ARGS)

campaign: setup ## run the random tests with ten times as many examples, from another seed each time (SEED=..., ARGS=...)
	@$(in_env) $(install_for_cluster) { $(install_locked) -r requirements/lock/colmap.txt || \
	  echo "campaign: pycolmap cannot be installed here: its tests skip" >&2; }; \
	  python -m pytest $(pytest_options) -m campaign --campaign $(if $(SEED),--campaign-seed $(SEED)) $(ARGS)

fuzz: setup ## feed every parser with inputs that are almost right for MINUTES=10 (PARSERS="bag weights ...", SEED=...)
	@$(in_env) { $(install_locked) -r requirements/lock/fuzz.txt || \
	  echo "fuzz: atheris cannot be installed here: mutations of the corpus alone" >&2; }; \
	  python -m tests.fuzz --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED)) $(PARSERS)

check: setup ## formatting, lint, types, shell scripts, then the tests
	@$(in_env) ruff format --check . && ruff check . && mypy && scripts/check_shell.sh && $(install_for_cluster) python -m pytest $(pytest_options) $(ARGS)

format: setup ## format and sort imports
	@$(in_env) ruff check --fix-only --quiet . ; ruff format .

parity: setup ## compare ALIKED with the authors' outputs in ../shared/golden
	@$(in_env) python -m tests.parity.report

evaluate: setup ## measure extractors on pairs warped from ../shared/images/val (hours on a CPU; ARGS="--count 10 ..." for less)
	@$(in_env) python -m feature_frontend evaluate homography --images "$${FEATURE_FRONTEND_SHARED:-../shared}/images/val" \
	  --weights-dir "$${FEATURE_FRONTEND_SHARED:-../shared}/weights" $(ARGS)

evaluate-tracks: setup ## measure tracks on sequences beside Lucas-Kanade and ORB (SOURCE="folder bag ...", ARGS="--compare chain,lk ...")
	@$(in_env) shared="$${FEATURE_FRONTEND_SHARED:-../shared}" && python -m feature_frontend evaluate tracks \
	  $(or $(SOURCE),"$$shared/data/tum_fr2_desk" "$$shared/data/kitti00") --weights-dir "$$shared/weights" $(ARGS)

benchmark: setup ## speed beside kornia and OpenCV in one run (SUITE=extract|match|onnx|frame|tracks|node|memory|soak|all, ARGS="--quick ...")
	@$(in_env) { $(install_locked) -r requirements/lock/benchmark.txt || \
	  echo "benchmark: kornia cannot be installed here (it needs Python 3.11): runs without it" >&2; }; \
	  python -m benchmarks $(SUITE) $(ARGS)

gpu-check: setup ## prove, measure and train on a CUDA card within MINUTES=8 (DEVICE=cpu rehearses it without one, PARTS="right fast ...")
ifeq ($(DEVICE),cpu)
	@$(in_env) python -m scripts.gpu_check.rehearsal --minutes $(or $(MINUTES),3) --output gpu_check_output $(PARTS)
else
	@$(in_env) { $(install_locked) -r requirements/lock/benchmark.txt || \
	  echo "gpu-check: kornia cannot be installed here (it needs Python 3.11): runs without it" >&2; }; \
	  python -m scripts.gpu_check.runner --minutes $(or $(MINUTES),8) --output gpu_check_output $(PARTS)
endif

gpu-pack: setup ## pack what a bare machine with a card lacks into .gpu, for the same check there (PARTS="fast ..." for some parts)
	@$(in_env) python -m scripts.gpu_check.pack $(PARTS)

gpu-results: setup ## put the archives of a check on a card, in FROM=folder, into benchmarks/results/gpu
	@$(in_env) python -m scripts.gpu_check.results "$(FROM)"

lock: ## remake requirements/lock/ (every file's SHA-256) after a version in requirements/ was raised; needs PyPI
	@scripts/lock.sh

audit: setup ## list what is installed (CycloneDX), with licences and known vulnerabilities, in audit_output/
	@$(in_env) python -m scripts.audit

docs: ## build the site of docs/ into docs_output/, strictly
	@scripts/docs.sh

docker-pin: ## write the digest of the container's base image into docker/Dockerfile; needs its registry
	@python3 docker/pin_base_image.py

docker-build: ## build the container image
	docker build -f docker/Dockerfile -t feature-frontend .

clean: ## remove everything that setup and the tools made
	rm -rf .venv .setup ros2_ws/build ros2_ws/install ros2_ws/log demo_output evaluation_output .mypy_cache .pytest_cache .ruff_cache .hypothesis \
	  .gpu .gpu-cache gpu_check_output audit_output fuzz_output docs_output
