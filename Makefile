# make test: the tests.  make demo: the demonstration.  Both need Go and make alone.
# make check: format, vet, staticcheck, tidy, a build for 386.
# make bench: the speed table (redis-server is used if it is installed).
# make soak: the simulator, seed after seed, for SOAK or until it is stopped; seeds that fail are kept in bin/soak-failed.txt.
# make fuzz: each fuzz target for FUZZTIME.

GO         ?= go
FUZZTIME   ?= 20s
SOAK       ?= 1000000h
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
MODULES     = . examples bench/rivals

.PHONY: all test soak check demo bench fuzz clean

all: check test

test:
	$(GO) test -race -timeout 15m -skip '^TestSim$$' ./...
	$(GO) test -race -timeout 15m -v -run '^TestSim$$' ./peer/peertest
	cd examples && $(GO) test -timeout 10m ./...

check:
	@out=$$(gofmt -l $$(git ls-files '*.go' 2>/dev/null || find . -name '*.go')); \
	  if [ -n "$$out" ]; then echo "not gofmt-ed:"; echo "$$out"; exit 1; fi
	@set -e; for m in $(MODULES); do \
	  echo "check $$m"; \
	  (cd $$m && $(GO) vet ./... && $(GO) run $(STATICCHECK) ./... && $(GO) mod tidy -diff); \
	done
	GOARCH=386 CGO_ENABLED=0 $(GO) build ./...
	GOARCH=386 CGO_ENABLED=0 $(GO) vet ./ring ./codec ./peer ./tier

soak:
	@mkdir -p bin
	SIM_FAILED=$(CURDIR)/bin/soak-failed.txt $(GO) test -race -timeout 0 -v -run '^TestSim$$' ./peer/peertest -soak $(SOAK)

demo:
	cd examples && $(GO) build -o ../bin/catalogue ./catalogue && cd .. && ./bin/catalogue $(DEMOFLAGS)

bench:
	cd bench/rivals && $(GO) run ./speed $(BENCHFLAGS)

fuzz:
	@set -e; for pkg in codec peer; do \
	  for f in $$($(GO) test -list '^Fuzz' ./$$pkg | grep '^Fuzz'); do \
	    echo "fuzz $$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) ./$$pkg; \
	  done; done

clean:
	rm -rf bin out
