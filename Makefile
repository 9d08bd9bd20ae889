# leat: build, test, measure. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := build
GO ?= go
BIN := bin
TOOLS := .tools
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
SOAK ?= 10m

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 14

build: leat leat-sql ## both programs, into bin/

leat: ## the service and its tools: static, no cgo
	CGO_ENABLED=0 $(GO) build -ldflags '$(LDFLAGS)' -o $(BIN)/leat ./cmd/leat

leat-sql: ## the SQL worker: needs a C++ compiler
	CGO_ENABLED=1 $(GO) build -tags netgo,osusergo -o $(BIN)/leat-sql \
		-ldflags '$(LDFLAGS) -linkmode external -extldflags "-static -Wl,--no-warnings"' ./cmd/leat-sql

demo: build ## everything in one process; Ctrl-C ends it
	$(BIN)/leat demo

tools: ## what the tests need besides Go
	./scripts/test-tools

check: ## format, vet, architecture
	@unformatted=$$(gofmt -l cmd internal test); if [ -n "$$unformatted" ]; then echo "gofmt needed: $$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) test ./internal/archtest

test: tools build check ## unit, conformance, race, fault and end-to-end tests
	./scripts/test

soak: tools build ## the long tests, for as long as SOAK says: kills, power cuts, fuzzing
	SOAK=$(SOAK) ./scripts/soak

bench: tools build ## the figures of docs/benchmarks.md
	./scripts/bench

cross: ## the platforms the main program builds for
	for target in linux/amd64 linux/arm64 linux/arm darwin/arm64 windows/amd64; do \
		echo $$target; GOOS=$${target%/*} GOARCH=$${target#*/} GOARM=7 CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/leat || exit 1; \
	done

docs: ## the generated reference
	$(GO) test ./cmd/leat -run TestReferencePagesAreFresh -update

clean: ## what was built and installed here
	rm -rf $(BIN) $(TOOLS) leat-data test/readers/node_modules test/clients/node_modules

.PHONY: help build leat leat-sql demo tools check test soak bench cross docs clean
