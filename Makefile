# make demo and make test are the two to know; README.md has the rest.

GO        ?= go
FUZZTIME  ?= 10s
DIFFERTIME ?= 60s
BIN       := bin/plyfs
UNIT       = $(shell $(GO) list ./... | grep -v '/integration')

.PHONY: build demo test test-unit test-mount test-real bench lint fuzz fuzz-differ deps clean

build:
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN) ./cmd/plyfs

demo: build
	@$(BIN) demo

# What the tests need beside Go; installed when missing and permitted.
deps:
	@.ci/install
	@$(GO) mod download

test: deps lint test-unit test-mount

lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo 'these files want gofmt:'; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

test-unit:
	$(GO) test -race $(UNIT)

# Through real mounts. Without root or FUSE they are skipped, each with its reason, unless
# PLYFS_REQUIRE_MOUNT=1.
test-mount: build
	$(GO) test -race -count=1 -timeout 15m ./integration/...

# A Debian root filesystem, Podman and Buildah on plyfs, and the stations of the note with a Debian system as the
# image: minutes, root and a network.
test-real: build
	@.ci/install real
	PLYFS_REAL=1 $(GO) test -count=1 -timeout 25m -run 'Real' -v $$($(GO) list ./integration/... | grep -v /note)
	PLYFS_REAL=1 $(GO) test -count=1 -timeout 10m -v ./integration/note

# BENCHFLAGS=--quick for a look; go run ./integration/bench --help for the rest.
bench: build
	@.ci/install
	$(GO) build -o bin/bench ./integration/bench
	bin/bench --plyfs $(BIN) $(BENCHFLAGS)

fuzz:
	@.ci/fuzz $(FUZZTIME)

# The kernel's overlayfs and plyfs side by side, from a random seed on; integration/differ/doc.go.
fuzz-differ:
	PLYFS_FUZZ_TIME=$(DIFFERTIME) $(GO) test -count=1 -timeout 60m -v -run 'TestFuzz$$' ./integration/differ

clean:
	rm -rf bin
