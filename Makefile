# Everything that people and CI run. `make` alone lists the targets.
# Needs Go (the version of go.mod), make, bash and git; `make race` also needs a
# C compiler. All tools come through the Go module proxy, in the versions of
# go.mod and tools/go.mod. The tests of HDFS, Azure and SQS run real servers, which
# need a JDK and Maven, Node.js and npm, and Python 3 with venv; without them they
# are skipped, and `make test` says so in its last line.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The product and its tests need no C compiler; only the race detector does.
export CGO_ENABLED := 0

GO ?= go
BIN := $(CURDIR)/bin
# Modules of their own, so that what they need does not enter the product's module.
TEST_MODULES := $(patsubst %/go.mod,%,$(wildcard test/*/go.mod))

# What tests find their child processes by. The servers that need more than Go are in
# the user's cache: `make provision` writes to the first file what names them, and to
# the second what `make test` says of those that it has to skip.
export FRESHET_BIN := $(BIN)/freshet
export FRESHET_TEST_S3SERVER := $(BIN)/s3server
export FRESHET_TEST_GCSSERVER := $(BIN)/gcsserver
BACKENDS_ENV := $(BIN)/backends.env
SKIPPED := $(BIN)/backends.skipped
# A name of its own for each run: a cached test result would add nothing to it.
REPORT := $(BIN)/conformance-$(shell date +%s).txt
WITH_BACKENDS = set -a; . $(BACKENDS_ENV); set +a;

# Knobs: make test TESTFLAGS='-run TestX -v', make fuzz FUZZTIME=5m, …
TAGS ?=
TESTFLAGS ?=
TEST_TIMEOUT ?= 20m
RACE_TIMEOUT ?= 25m
# Packages that start whole clusters or servers as processes and test these. They run
# one after the other, and not under the race detector, which would watch only the
# test's own process. So does the one that measures its own memory.
CLUSTER_TESTS ?= /test/(e2e|chaos|bench|scale|join|hdfstest|azuretest|gcstest|sqstest)(/| |$$)
# Under the race detector a simulated seed takes ten times as long.
RACE_SEEDS ?= 6
RACE_CLUSTERS ?= $(addprefix ./test/,e2e/unpersisted e2e/local e2e/faults e2e/writers e2e/region e2e/bus chaos)
FUZZTIME ?= 10s
# `make bench` takes seven minutes or more; docs/performance.md says how to take longer or parts.
BENCH ?= StatHot|ListHot|LookupHot|List1000|LoadListing|ParsePage
BENCHTIME ?= 300ms
BENCH_PKGS ?= ./coordinator ./coordinator/namespace ./ufs/s3
BENCHFLAGS ?= -length 2s -rounds 100 -kills 3
SEEDS ?= 100
CHAOS_TIMEOUT ?= 4h
SOAK ?= 10m
INODES ?= 10000000
SCALE_TIMEOUT ?= 1h
UFS ?=
DEMOFLAGS ?=

VERSION_PKG := github.com/freshet-io/freshet/internal/version
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
COMMIT ?= $(shell git rev-parse HEAD 2>/dev/null)
# The commit's time, not the build's, so that a build can be repeated bit by bit.
DATE ?= $(shell git log -1 --format=%cI 2>/dev/null)
LDFLAGS = -s -w -X $(VERSION_PKG).version=$(VERSION) -X $(VERSION_PKG).commit=$(COMMIT) -X $(VERSION_PKG).date=$(DATE)
BUILDFLAGS = -trimpath -buildvcs=false $(if $(TAGS),-tags $(TAGS))

# buf and golangci-lint take minutes to build, so they are linked once per version
# and Go release, into the user's cache.
TOOLS_KEY := $(shell { cat tools/go.mod tools/go.sum; $(GO) env GOVERSION; } | cksum | cut -d ' ' -f 1)
TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/freshet-tools/$(TOOLS_KEY)/bin
BUF := $(TOOLS)/buf
GOLANGCI := $(TOOLS)/golangci-lint

##@ Build

.PHONY: build
build: ## build bin/freshet
	$(GO) build $(BUILDFLAGS) -ldflags '$(LDFLAGS)' -o $(FRESHET_BIN) ./cmd/freshet

.PHONY: backends
backends: backend-s3 backend-gcs ## build bin/s3server and bin/gcsserver, which the tests start

# One by one: who tests S3 alone need not wait for the other, whose SDK is large.
.PHONY: backend-s3 backend-gcs
backend-s3 backend-gcs: backend-%:
	$(GO) build -C test/backends -trimpath -buildvcs=false -ldflags='-s -w' -o $(BIN)/$*server ./cmd/$*server

.PHONY: provision
provision: ## install the test servers of HDFS, Azure and SQS in the user's cache (FRESHET_TEST_BACKENDS=go: leave them out)
	@mkdir -p $(BIN)
	$(GO) run ./test/provision -env $(BACKENDS_ENV) -skipped $(SKIPPED)

.PHONY: demo
demo: build ## build and run the guided tour over two clusters (UFS=s3://… for a real storage)
	$(FRESHET_BIN) demo $(if $(UFS),--ufs "$(UFS)") $(DEMOFLAGS)

.PHONY: generate
generate: $(BUF) ## generate code and OpenAPI from proto/
	$(BUF) generate

.PHONY: fmt
fmt: $(GOLANGCI) $(BUF) ## format Go and proto files
	for d in . $(TEST_MODULES); do (cd $$d && $(GOLANGCI) fmt --config $(CURDIR)/.golangci.yml); done
	$(BUF) format -w proto

.PHONY: proto-baseline
proto-baseline: $(BUF) ## at a release: make the current proto/ what later changes must not break
	$(BUF) build proto --exclude-source-info -o proto/baseline.binpb

.PHONY: tools
tools: $(BUF) $(GOLANGCI) ## build buf and golangci-lint into the user's cache

# Through a temporary name, so that an interrupted or parallel build leaves no half a tool.
$(BUF): TOOL_PKG := github.com/bufbuild/buf/cmd/buf
$(GOLANGCI): TOOL_PKG := github.com/golangci/golangci-lint/v2/cmd/golangci-lint
$(BUF) $(GOLANGCI):
	@mkdir -p $(@D)
	$(GO) build -C tools -trimpath -buildvcs=false -o $@.$$$$ $(TOOL_PKG); mv $@.$$$$ $@

.PHONY: clean
clean: ## remove bin/
	rm -rf $(BIN)

##@ Check

.PHONY: check
check: check-fmt vet lint arch check-proto check-generated check-mod ## all of the checks below

.PHONY: check-fmt
check-fmt: $(GOLANGCI) $(BUF) ## formatting of Go and proto files
	for d in . $(TEST_MODULES); do (cd $$d && $(GOLANGCI) fmt --diff --config $(CURDIR)/.golangci.yml); done
	$(BUF) format --diff --exit-code proto

.PHONY: vet
vet: ## go vet
	$(GO) vet ./...
	for d in $(TEST_MODULES); do $(GO) vet -C $$d ./...; done

.PHONY: lint
lint: $(GOLANGCI) ## golangci-lint
	$(GOLANGCI) config verify
	for d in . $(TEST_MODULES); do (cd $$d && $(GOLANGCI) run --config $(CURDIR)/.golangci.yml ./...); done

.PHONY: arch
arch: ## the import map
	$(GO) test ./internal/archtest

.PHONY: check-proto
check-proto: $(BUF) ## buf lint, buf breaking against proto/baseline.binpb
	$(BUF) lint
	@test -f proto/baseline.binpb || { echo 'proto/baseline.binpb is missing: restore it, or run `make proto-baseline`' >&2; exit 1; }
	$(BUF) breaking proto --against proto/baseline.binpb

.PHONY: check-generated
check-generated: $(BUF) ## generated code is what `make generate` makes
	@tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	$(BUF) generate -o "$$tmp"; \
	diff -r -x '*.proto' -x '*.binpb' -x '*.md' proto "$$tmp/proto" && \
	diff docs/api/freshet.swagger.json "$$tmp/docs/api/freshet.swagger.json" || \
	{ echo 'generated files are not current: run `make generate` and commit the result' >&2; exit 1; }

.PHONY: check-mod
check-mod: ## go.mod and go.sum are tidy
	$(GO) mod tidy -diff
	for d in $(TEST_MODULES); do $(GO) -C $$d mod tidy -diff; done

##@ Test

test test-backends: export FRESHET_TEST_REPORT := $(REPORT)

.PHONY: test
test: build backends provision ## all tests, without cgo; those that start whole clusters last
	$(WITH_BACKENDS) pkgs=$$($(GO) list ./... | grep -vE '$(CLUSTER_TESTS)'); \
	$(GO) test $(if $(TAGS),-tags $(TAGS)) -timeout $(TEST_TIMEOUT) $(TESTFLAGS) $$pkgs
	$(WITH_BACKENDS) pkgs=$$($(GO) list ./... | grep -E '$(CLUSTER_TESTS)' || true); [ -z "$$pkgs" ] || \
	$(GO) test -p 1 $(if $(TAGS),-tags $(TAGS)) -timeout $(TEST_TIMEOUT) $(TESTFLAGS) $$pkgs
	for d in $(TEST_MODULES); do $(GO) -C $$d test -timeout $(TEST_TIMEOUT) $(TESTFLAGS) ./...; done
	@echo; echo 'Conformance of storages:'; cat $(REPORT); rm -f $(REPORT)
	@cat $(SKIPPED)

# Every package whose tests start a server that is not in process.
.PHONY: test-backends
test-backends: export FRESHET_REQUIRE_BACKENDS := all
test-backends: build backends provision ## the tests that need any storage server, none of them skipped
	$(WITH_BACKENDS) pkgs=$$($(GO) list -f '{{.ImportPath}} {{join .TestImports " "}} {{join .XTestImports " "}}' ./... | \
		grep -E '/test/[a-z0-9]+test( |$$)' | cut -d ' ' -f 1); \
	$(GO) test -p 1 $(if $(TAGS),-tags $(TAGS)) -timeout $(TEST_TIMEOUT) $(TESTFLAGS) $$pkgs
	@echo; echo 'Conformance of storages:'; cat $(REPORT); rm -f $(REPORT)

# Tests in simulated time run on one CPU: on several, timers of a bubble share the
# race detector's context across threads, which crashes it (golang/go#78156).
.PHONY: race
race: build backends provision ## tests under the race detector, without those that start whole clusters
	@command -v "$$($(GO) env CC)" >/dev/null || { echo 'make race needs a C compiler ($$CC, for example gcc)' >&2; exit 1; }
	$(WITH_BACKENDS) all=$$($(GO) list -f '{{.ImportPath}} {{join .TestImports " "}} {{join .XTestImports " "}}' ./... | grep -vE '^[^ ]*$(CLUSTER_TESTS)'); \
	race() { CGO_ENABLED=1 FRESHET_SIM_SEEDS=$(RACE_SEEDS) $(GO) test -race $(if $(TAGS),-tags $(TAGS)) -timeout $(RACE_TIMEOUT) $(TESTFLAGS) "$$@"; }; \
	rc=0; race $$(echo "$$all" | grep -v ' testing/synctest' | cut -d ' ' -f 1) || rc=$$?; \
	race -cpu 1 $$(echo "$$all" | grep ' testing/synctest' | cut -d ' ' -f 1) || rc=$$?; exit $$rc
	@cat $(SKIPPED)

# What the programs find goes to files, for tests kill most of them. Left out are what
# needs a binary without the C library, and what measures memory, of which the detector takes much.
RACE_SKIP := TestAContainerSharesOnlyTheSocket|TestManyStreamsNeedLittleMemory|TestManyUploadsShareMemory
.PHONY: race-clusters
race-clusters: build backends provision ## tests of whole clusters (RACE_CLUSTERS) whose programs run under the race detector
	@command -v "$$($(GO) env CC)" >/dev/null || { echo 'make race-clusters needs a C compiler ($$CC, for example gcc)' >&2; exit 1; }
	CGO_ENABLED=1 $(GO) build -race $(BUILDFLAGS) -o $(BIN)/race/freshet ./cmd/freshet
	$(WITH_BACKENDS) races=$$(mktemp -d); trap 'rm -rf "$$races"' EXIT; rc=0; \
	FRESHET_BIN=$(BIN)/race/freshet GORACE="log_path=$$races/of" $(GO) test -count 1 -p 1 -timeout $(RACE_TIMEOUT) -skip '$(RACE_SKIP)' $(TESTFLAGS) $(RACE_CLUSTERS) || rc=$$?; \
	if [ -n "$$(ls "$$races")" ]; then cat "$$races"/*; rc=66; fi; exit $$rc

.PHONY: fuzz
fuzz: ## every fuzz target, each for FUZZTIME
	grep -rEo --include='*_test.go' $(addprefix --exclude-dir=,$(notdir $(TEST_MODULES))) '^func Fuzz[A-Za-z0-9_]*' . | sort | \
	while IFS=: read -r file func; do \
		echo "== $$(dirname $$file) $${func#func }"; \
		$(GO) test -run '^$$' -fuzz "^$${func#func }\$$" -fuzztime $(FUZZTIME) "$$(dirname $$file)" </dev/null; \
	done

.PHONY: bench
bench: build backends provision ## benchmarks in process, then of whole clusters (BENCH=pattern, BENCH_PKGS=packages, BENCHFLAGS=flags of test/bench)
	$(WITH_BACKENDS) $(GO) test -p 1 -run '^$$' -bench '$(BENCH)' -benchmem -benchtime $(BENCHTIME) -timeout $(CHAOS_TIMEOUT) $(BENCH_PKGS)
	$(WITH_BACKENDS) $(GO) run ./test/bench -bin $(FRESHET_BIN) $(BENCHFLAGS)

.PHONY: chaos
chaos: build backends ## fault tests with SEEDS seeds instead of the few of `make test`
	FRESHET_CHAOS_SEEDS=$(SEEDS) FRESHET_SIM_SEEDS=$(SEEDS) $(GO) test -count 1 -timeout $(CHAOS_TIMEOUT) $(TESTFLAGS) ./test/sim ./test/model ./test/chaos/...

.PHONY: soak
soak: build backends ## two regions at work for SOAK while their coordinators are killed; the members' states stay equal
	FRESHET_SOAK=$(SOAK) $(GO) test -count 1 -timeout $(CHAOS_TIMEOUT) -run '^TestSoak$$' $(TESTFLAGS) ./test/chaos

.PHONY: soak-data
soak-data: SOAK = 30m
soak-data: build backends ## two regions write and read two storages in all ways for SOAK (30m) through small caches, while nodes are killed; nothing grows
	FRESHET_SOAK_DATA=$(SOAK) $(GO) test -count 1 -v -timeout $(CHAOS_TIMEOUT) -run '^TestSoakOfTheDataPath$$' $(TESTFLAGS) ./test/e2e/faults

.PHONY: scale
scale: ## the test of a state of INODES inodes, instead of the million of `make test`
	FRESHET_SCALE_INODES=$(INODES) $(GO) test -count 1 -timeout $(SCALE_TIMEOUT) -v $(TESTFLAGS) ./test/scale ./test/join

##@ Help

.PHONY: help
help: ## this list
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
