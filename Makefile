# What there is to do here. `make test` is what has to pass before a change goes in.
.PHONY: help demo test lint conformance bench simulate

help:
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

demo: ## walk three stages in an embedded world, nothing else installed
	cargo run --release --locked -- demo $(ARGS)

test: ## everything: missing parts, lints, unit, integration and documentation tests
	@scripts/timed tests

lint: ## format, clippy, documentation
	@scripts/timed lint

conformance: ## every load-balancer adapter against every line of the suite, on real servers
	@scripts/timed conformance

bench: ## what judging and keeping costs, beside a rank test and the machine's own disk
	cargo bench --locked --no-default-features --bench stats
	cargo bench --locked --bench store
	cargo bench --locked --bench daemon
	cargo bench --locked --features full --bench shift

simulate: ## seeded rollouts with faults over the engine
	cargo run --release --locked -- simulate --seeds 0..20000
