# Stratograph's front door. Each target is one script of gateway/setup/ or one command of `stratograph`;
# `exec` hands the process over, so that signals reach the gateway itself.

setup := gateway/setup
bin := .venv/bin

.PHONY: help run demo test clients convert lint bench guest lock doctor setup schema clean
.DEFAULT_GOAL := help

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: ## Set everything up and serve the cloud in the foreground (Ctrl-C ends it)
	@exec $(setup)/run.sh

demo: ## Boot a real guest through the running gateway, show it, and clean up
	@exec $(setup)/demo.sh $(DEMO_ARGS)

test: ## Run all tests with everything real that they need (PYTEST_ARGS=...)
	@exec $(setup)/test.sh $(PYTEST_ARGS)

clients: ## Run the clients alone that others generate: TypeScript, Relay, Python (CONNECTS=10000, PYTEST_ARGS=...)
	@exec $(setup)/clients.sh $(PYTEST_ARGS)

convert: ## Have virt-v2v convert a real Debian on its way from VMware to KVM, a quarter of an hour (PYTEST_ARGS=...)
	@exec $(setup)/convert.sh $(PYTEST_ARGS)

lint: ## Run the static checks: ruff, mypy, import-linter, shellcheck
	@exec $(setup)/lint.sh

bench: setup ## Measure speed and print a table (BENCH_ARGS=...)
	@exec $(bin)/python -m tests.bench $(BENCH_ARGS)

guest: ## Build the tiny guest image from Debian packages and print its path
	@$(setup)/packages.sh guest && exec tests/guest/image.sh

lock: ## Write requirements.lock anew from pyproject.toml (UPGRADE=1 for newer versions)
	@exec $(setup)/lock.sh

doctor: setup ## Say what is there, what is missing, and the remedy
	@exec $(bin)/stratograph doctor

setup: ## Install system packages and the virtual environment, start libvirtd
	@exec $(setup)/setup.sh

schema: setup ## Write the committed generated files anew: schema, policy, parts of the READMEs
	@$(bin)/python -m resolvers.export && $(bin)/python -m resolvers.schema_care.errors && $(bin)/python -m tests.golden.write && exec $(bin)/python -m gateway.documents

clean: ## Remove the virtual environment and caches (the state directory stays)
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
