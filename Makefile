# Everything one types here. CI types the same.

# Tools that setup unpacked, and the sbin directories, for every recipe.
ENV := . ./scripts/env.sh;

PACKETS ?= 1000000
SEEDS ?= 1..5

.DEFAULT_GOAL := help
.PHONY: help setup build demo test conform nat-table fuzz mutants lint book soak bench wasm clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

setup: ## install what is missing: apt-get as root, unpacked under target/tools otherwise
	@scripts/setup.sh base
	$(if $(filter setup,$(MAKECMDGOALS)),@echo 'setup: everything is there')

build: setup ## the program, target/release/ctwhy
	@$(ENV) cargo build --release --locked -p ctwhy
	@echo 'target/release/ctwhy is there; in this shell, `. scripts/env.sh` puts it on the PATH, and the tools that were unpacked'

demo: setup ## a real traceroute through a kernel NAT, explained packet by packet
	@$(ENV) cargo build --locked -p ctwhy
	@scripts/demo.sh

test: setup ## all tests: unit, property, snapshot, lab, doc, the book's commands, the wasm build
	@scripts/test.sh

conform: setup ## the long differential run: SEEDS=1..5, PACKETS=1000000 of each suite with each seed
	@$(ENV) cargo build --release --locked -p ctwhy
	@$(ENV) target/release/ctwhy conform fuzz --seed $(SEEDS) --packets $(PACKETS) --output target/disagreements
	@$(ENV) target/release/ctwhy conform nat-compare --packets $(PACKETS) --output target/disagreements
	@$(ENV) target/release/ctwhy conform nat-compare --on tun --seed $(SEEDS) --packets 100000 --output target/disagreements
	@$(ENV) target/release/ctwhy conform nat-compare --on queue --seed $(SEEDS) --packets 100000 --output target/disagreements

nat-table: setup ## ask every NAT of the lab that is installed, and write the book's table of what they do
	@$(ENV) cargo build --locked -p ctwhy
	@scripts/nat-table.sh

mutants: ## is every check of the engine held by what a kernel decided? with cargo-mutants, about an hour
	@$(ENV) cargo mutants --package ctwhy-core --test-package ctwhy-core,ctwhy-conform --baseline skip --timeout 60 \
		--output target

fuzz: ## each fuzz target for TIME seconds (60), with cargo-fuzz on a nightly toolchain
	@$(ENV) scripts/fuzz.sh $(or $(TIME),60)

wasm: ## build ctwhy-core for wasm32-unknown-unknown
	@scripts/setup.sh wasm
	@scripts/wasm.sh

lint: setup ## formatting, clippy, rustdoc; shellcheck and cargo-deny where installed
	$(ENV) cargo fmt --all --check
	$(ENV) cargo clippy --locked --workspace --all-targets -- -D warnings
	$(ENV) RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps
	$(ENV) if command -v shellcheck >/dev/null; then shellcheck scripts/*.sh .ci/run; else echo 'no shellcheck here'; fi
	$(ENV) if command -v cargo-deny >/dev/null; then cargo deny check bans licenses sources; else echo 'no cargo-deny here'; fi

book: ## build the book into target/book
	@scripts/setup.sh book
	$(ENV) mdbook build book
	@echo 'open target/book/index.html'

soak: setup ## 50,000 flows through nat tun and nat queue for TIME seconds (600) each, disturbed, killed and flooded
	@$(ENV) CTWHY_SOAK=$(or $(TIME),600) cargo test --release --locked -p ctwhy --test nat_soak -- --nocapture --test-threads=1

bench: setup ## the benchmarks: the engine, then NATs beside each other; UPDATE_BOOK=1 writes the book's tables
	@$(ENV) cargo bench --locked --workspace --exclude ctwhy
	@$(ENV) $(if $(UPDATE_BOOK),UPDATE_BOOK=1) cargo bench --locked -p ctwhy --bench nat

clean: ## remove all that was built or unpacked
	rm -rf target
