# The everyday verbs. Each installs what it needs first (tests/env/prepare), and is quick when it is there.
#
#   make demo        the two mistakes of the trade, and the way back; KEEP=1 leaves it to play with
#   make test        the suite; ARGS='name' runs the tests whose name holds it
#   make test-all    every test on every PostgreSQL, and the long campaigns
#   make fuzz        every fuzz target for a minute; ARGS=SECONDS for another while
#   make bench       speed and memory against pg_basebackup and pgBackRest
#   make deb         a Debian package in target/debian, checked
#   make lint        what a change must pass: format, clippy, scripts

SHELL := /bin/bash
CARGO ?= cargo
ARGS ?=
KEEP ?=

.PHONY: help build demo test test-all fuzz bench deb lint clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   //p' Makefile

build:
	@tests/env/prepare --build-only
	$(CARGO) build --release --locked

demo:
	@tests/env/prepare 17
	$(CARGO) build --release --locked
	@KEEP=$(KEEP) tests/env/demo

test:
	@tests/env/prepare
	$(CARGO) test --locked $(ARGS)

test-all:
	@tests/env/prepare --all
	WALDEN_TEST_ALL=1 $(CARGO) test --locked $(ARGS)
	@tests/env/prepare --fuzz
	@tests/env/fuzz 20

fuzz:
	@tests/env/prepare --fuzz
	@tests/env/fuzz $(ARGS)

bench:
	@tests/env/prepare --bench
	$(CARGO) build --release --locked
	$(CARGO) build --locked --example store-segments
	@tests/bench/run $(ARGS)

deb:
	@tests/env/prepare --build-only
	$(CARGO) build --release --locked
	@tests/env/make-deb

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	@if command -v shellcheck >/dev/null; then tests/env/lint-scripts; \
	else echo "lint: no shellcheck here, the scripts are not looked at"; fi

# What was downloaded stays: see tests/env/cache-dir.
clean:
	$(CARGO) clean
