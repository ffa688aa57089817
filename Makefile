# Everything from a fresh clone: each target first brings .venv and install/ up to date, which costs nothing when they are.
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help setup setup-test isaaclab gr00t train test deploy evaluate bench bench-monitoring bench-resume format lint type clean distclean

export PYTHON
ACTIVATED := . ./activate.sh &&
LAUNCH := $(ACTIVATED) exec ros2 launch grpo_ros

# A simulator that is an extra is installed when it is asked for.
ifeq ($(SIMULATOR),isaaclab)
override EXTRAS += isaaclab
endif

# SEED=1 becomes seed:=1; ARGS takes any other launch argument, as name:=value.
lower = $(shell echo $(1) | tr A-Z a-z)
settings = $(foreach name,$(1),$(if $($(name)),'$(call lower,$(name)):=$($(name))')) $(ARGS)
RUN_SETTINGS := TASK SIMULATOR SEED
TRAIN_SETTINGS := $(RUN_SETTINGS) DIFFICULTY ALGORITHM POLICY PLACEMENT GROUP_SIZE RESUME
DEPLOY_SETTINGS := POLICY EPISODES SEED ROBOT

help: ## show this help
	@echo "make TARGET [NAME=value ...] [ARGS=\"name:=value ...\"]"
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1 ## /p' Makefile | awk -F ' ## ' '{ printf "  %-16s %s\n", $$1, $$2 }'

setup: ## install all that is needed into .venv (PYTHON=/path/to/python3.12, EXTRAS="isaaclab gr00t browser")
	@tools/set_up.sh $(EXTRAS)

setup-test:
	@tools/set_up.sh test $(EXTRAS)

isaaclab: ## install Isaac Lab 3.0 beside the rest, for SIMULATOR=isaaclab (3 GB more)
	@tools/set_up.sh isaaclab $(EXTRAS)

gr00t: ## install what GR00T policies need beside the rest (0.6 GB more)
	@tools/set_up.sh gr00t $(EXTRAS)

train: setup ## train a policy (TASK DIFFICULTY ALGORITHM POLICY SIMULATOR PLACEMENT SEED GROUP_SIZE RESUME, ARGS)
	@$(LAUNCH) train.launch.py $(call settings,$(TRAIN_SETTINGS))

deploy: setup ## run POLICY=FILE.onnx on a robot, simulated by default (EPISODES SEED ROBOT, ARGS)
	@$(LAUNCH) deploy.launch.py $(call settings,$(DEPLOY_SETTINGS))

evaluate: setup ## measure POLICY=FILE.onnx on held-out initial states (EPISODES SEED, ARGS)
	@$(LAUNCH) evaluate.launch.py $(call settings,$(DEPLOY_SETTINGS))

test: setup-test ## lint, check types and run the tests, as CI does (ARGS="-k name" goes to pytest)
	@$(ACTIVATED) tools/check.sh lint type test $(ARGS)

bench: setup-test ## measure side by side with peers, print a table
	@$(ACTIVATED) python -m bench $(ARGS)

bench-monitoring: setup-test ## measure what it costs that a training run is watched over ROS
	@$(ACTIVATED) python -m bench monitoring $(ARGS)

bench-resume: setup-test ## kill 50 runs at random instants, resume them, compare with runs left alone
	@$(ACTIVATED) python -m bench.resume $(ARGS)

format: setup-test ## format the code
	@$(ACTIVATED) ruff check --fix-only --quiet . && ruff format .

lint: setup-test ## check style
	@$(ACTIVATED) tools/check.sh lint

type: setup-test ## check types
	@$(ACTIVATED) tools/check.sh type

clean: ## remove what was built; the environment and the runs stay
	rm -rf build install log dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

distclean: clean ## remove the environment too
	rm -rf .venv
