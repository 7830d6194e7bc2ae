# Everything needs only Go, make and a C compiler; the tools are Go modules pinned in
# tools/go.mod and built on first use.

GO        ?= go
TOOL      := $(GO) tool -modfile=tools/go.mod
BIN       := bin/maestro
COMMIT    := $(shell git rev-parse HEAD 2>/dev/null)
LDFLAGS   := -X github.com/maestro-conductor/maestro/internal/version.commit=$(COMMIT)
PACKAGES  := ./...
FUZZTIME  ?= 20s
# The earliest build whose nodes work in one region with this one.
EARLIEST  ?= 869db08ed36f218313fc4ba8d562f5a5fe5d1bbf

.PHONY: help build dev test lint generate bench bench-limiter bench-index bench-packages bench-policies chaos upgrade interop fuzz clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

build: ## build bin/maestro
	$(GO) build -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/maestro

dev: build ## build, and run a three-node region on this machine until Ctrl-C
	$(BIN) dev

test: ## run every test under the race detector
	$(GO) test -race -timeout 20m $(PACKAGES)

lint: ## check formatting, vet, staticcheck, protos, generated code and go.mod
	@./scripts/lint.sh

generate: ## regenerate the code of api/gen from api/proto, and docs/errors.md
	@./scripts/generate.sh

bench: build ## measure, alone on the machine; BENCH_OUT=FILE also writes JSON lines
	$(GO) run ./bench -binary $(BIN) $(BENCHFLAGS)

bench-limiter: build ## measure the limiter and its peers, which are fetched once, some minutes; SHORT=1 for less
	$(GO) run ./bench -binary $(BIN) -run 'limiter-.*' $(if $(SHORT),-quick) \
		-redis "$$(./scripts/peers.sh redis)" -ratelimit "$$(./scripts/peers.sh ratelimit)" $(BENCHFLAGS)

bench-index: build ## measure the index at ten million documents, and its peers at a million; BENCHFLAGS="-documents 1000000" for less
	$(GO) run ./bench -binary $(BIN) -run 'index-.*' -documents 10000000 $(if $(NOPEERS),,-index-peers "$$(./scripts/indexpeers.sh)") $(BENCHFLAGS)

bench-packages: build ## measure packages; BENCHFLAGS="-quick" for less
	$(GO) run ./bench -binary $(BIN) -run 'packages-.*' $(BENCHFLAGS)

bench-policies: build ## measure decisions of policy packs; BENCHFLAGS="-quick" for less
	$(GO) run ./bench -binary $(BIN) -run 'policies-.*' $(BENCHFLAGS)

chaos: build ## kill and pause the processes of a region for a minute and check the promises
	$(GO) run ./jepsen -binary $(BIN) $(CHAOSFLAGS)

upgrade: build ## upgrade a region under traffic from the build EARLIEST to this one, node by node
	./scripts/upgrade.sh $(BIN) $(EARLIEST)

interop: build ## try what works with others: Envoy, an S3 server, cosign, npm's verifier, opa, fetched once; ENVOY, SEAWEEDFS, COSIGN, OPA name others
	seaweedfs=$$(./scripts/fetch.sh seaweedfs) && SEAWEEDFS=$$seaweedfs $(GO) test -tags interop -count=1 -timeout 10m -run S3 -v ./internal/objectstore ./index
	envoy=$$(./scripts/fetch.sh envoy) && cosign=$$(./scripts/fetch.sh cosign) && modules=$$(./scripts/sigstorejs.sh) && opa=$$(./scripts/fetch.sh opa) && \
		ENVOY=$$envoy COSIGN=$$cosign OPA=$$opa NODE_PATH=$$modules MAESTRO=$(abspath $(BIN)) $(GO) test -tags interop -count=1 -timeout 10m -v ./interop

fuzz: ## run every fuzz target for FUZZTIME
	@./scripts/fuzz.sh $(FUZZTIME)

clean: ## remove what was built and the development region
	rm -rf bin .maestro
