# make test: the tests with the race detector, in four minutes on two quiet cores.  make demo: the demonstration.
#   Both need only Go and make.
# make test-long: the tests that take longer or need more: those whose names end in Long (500 seeds of the simulator, the scenes at
#   their full length, processes in network namespaces), the examples, the rivals. The targets below name what they need. A part whose
#   programs are missing is skipped with a message, or is an error with REQUIRE=1.
# make test-loaded: make test alongside four busy loops per processor.
# make flaky: every test of tier, peer, ring, codec and cmd COUNT times for each CPU, shuffled and under load; choose with PKG and RUN:
#   make flaky PKG=./tier RUN='^TestMany' COUNT=200 CPU=1,4.
# make mutate PKG=./ring: changes one operator of a package at a time and checks whether its tests notice; .ci/mutate documents the variables.
# make check: format, the analyzers of vet and staticcheck, tidy, and whether the code compiles for 386 and arm64.
# make bench: the speed table (uses redis-server if it is installed), saved in bench/results/speed.json, and make bench-micro.
#   With BENCHFLAGS (such as -quick) only the table, and it is only shown.
# make bench-micro: hits in memory beside those of other caches, COUNT alternating rounds, saved in bench/results/micro.txt, and what
#   benchstat says of them. BENCHTIME is how long each benchmark runs.
# make example-postgres: a cache that follows a database with four writers; uses PostgreSQL's programs.
# make browser: tests the page in a headless Chromium; screenshots in bin/page.
# make monitoring: checks the alert rules, the dashboard and the metrics with promtool.
# make bench-rivals SCENARIO=storm: runs a scenario on weir and its rivals, alternately.
# make results: measures all files in bench/results, in less than two hours on a quiet machine; .ci/results documents the
#   variables.
# make bench-docs: regenerates the tables in the documents from the files in bench/results.
# make bench-compare BASE=rev: compares the micro-benchmarks of a revision with those of the work tree.
# make sim SEED=7 SCHEDULE=3: a run of the simulator that repeats exactly; shows a violation in the shortest history.
#   SCHEDULES=200 instead of SCHEDULE tries schedules until one breaks a guarantee.
# make controls: prints how soon the simulator sees each of the controls, which break something on purpose; CONTROLS chooses by a
#   regular expression.
# make soak: runs the simulator with pair after pair of seeds, for SOAK or until it is stopped; appends "seed schedule" of each failure
#   to bin/soak-failed.txt. make soak-native: the same with the race detector, where only the seed repeats.
# make test-replay: checks that a pair of seeds repeats a run of the simulator.
# make chaos: runs nodes as processes in network namespaces with faults from a seed, and checks from outside what clients and the origin
#   saw; needs root and iproute2. CHAOSFLAGS='-seed 7 -for 10m -faults cut,stop' chooses; CHAOSFLAGS=-help lists the flags.
# make vuln: checks for known vulnerabilities; needs https://vuln.go.dev.
# make reproducible: checks that builds in two directories are identical.
# make fuzz: runs each fuzz target for FUZZTIME.

GO         ?= go
FUZZTIME   ?= 20s
SCENARIO   ?= storm
COUNT      ?= $(if $(filter flaky,$(MAKECMDGOALS)),50,6)
CPU        ?= 1,2,4
PKG        ?= ./tier ./peer/... ./ring ./codec ./cmd/...
RUN        ?=
BENCH      ?= .
BENCHTIME  ?= 300ms
BENCHPKGS  ?= ./bench ./tier ./codec ./ring
BENCHSTAT   = golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da
SOAK       ?= 1000000h
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0
MODULES     = . examples bench/rivals peer/page/browser peer/peertest/replay tier/oteltier .ci/lint

# With the race detector, because the tests need the standard library with it anyway.
SUITE       = $(GO) run -race ./cmd/suite
LONG        = ^Test.*Long$$
# These check the results of many reads or seeds. With the race detector, which the short tests use, they would take ten times as long.
PLAIN       = ^Test(Sim|Scene.*|ProjectionIsTrue)Long$$
LONGPKGS    = $(shell grep -rl '^func Test[A-Za-z]*Long' --include='*_test.go' ring codec tier peer cmd bench | xargs -n1 dirname | sort -u | sed 's,^,./,')

export GO
# A program with the race detector waits a second before it exits, and the tests start many programs.
export GORACE ?= atexit_sleep_ms=20

.PHONY: all test test-long test-loaded flaky mutate sim controls soak soak-native chaos test-replay check house demo example-postgres bench bench-micro bench-rivals results bench-docs bench-compare browser monitoring fuzz vuln reproducible clean

all: check test

# The packages that take longest go first, so that the others fill the gaps.
# make check has the analyzers of vet, so that go test need not repeat some of them.
test:
	$(SUITE) test -race -vet=off -count=1 -timeout 1h -p 3 -skip '$(LONG)' ./peer/peertest ./peer ./tier ./bench/harness ./...

test-loaded:
	$(SUITE) load $(MAKE) test

test-long:
	@set -e; skip='$(PLAIN)'; short=; \
	  missing() { echo "left out: $$1; $$2 (apt-get install $$3)"; [ -z "$(REQUIRE)" ]; }; \
	  if ! { ip netns add weir-$$$$ && ip netns del weir-$$$$; } 2>/dev/null; then \
	    missing "processes in network namespaces" "they need ip, and a root who may make one" iproute2; skip="$$skip|^TestChaos"; fi; \
	  if ! command -v redis-server >/dev/null; then missing "the rivals' tests with a Redis" "they need redis-server" redis-server; short=-short; fi; \
	  if ! command -v memcached >/dev/null; then missing "the rivals' tests with a memcached" "they need memcached" memcached; short=-short; fi; \
	  if ! command -v promtool >/dev/null; then missing "the alert rules" "they need promtool" prometheus; fi; \
	  $(SUITE) test -race -count=1 -timeout 3h -p 3 -run '$(LONG)' -skip "$$skip" $(LONGPKGS) \
	    -- -count=1 -timeout 3h -run '$(PLAIN)' ./peer/peertest ./tier \
	    -- -C .ci/lint -count=1 -timeout 1h ./... \
	    -- -C tier/oteltier -race -count=1 -timeout 1h ./... \
	    -- -C examples -count=1 -timeout 1h ./... \
	    -- -C bench/rivals -race -count=1 -timeout 1h $$short ./...
	@if grep -q '^test-replay:' $(firstword $(MAKEFILE_LIST)); then $(MAKE) test-replay; fi

flaky:
	$(GO) run ./cmd/suite flaky -count $(COUNT) -cpu $(CPU) -run '$(RUN)' -skip '$(LONG)|^TestSim$$' $(PKG)

check: bin/lint
	@out=$$(gofmt -l $$(git ls-files '*.go' 2>/dev/null || find . -name '*.go')); \
	  if [ -n "$$out" ]; then echo "not gofmt-ed:"; echo "$$out"; exit 1; fi
	@set -e; for m in $(MODULES); do \
	  echo "check $$m"; \
	  (cd $$m && $(GO) mod tidy -diff); CGO_ENABLED=0 GOMEMLIMIT=6GiB bin/lint $$m; \
	done
	GOARCH=386 CGO_ENABLED=0 bin/lint -types .
	GOARCH=arm64 CGO_ENABLED=0 bin/lint -types .

house: bin/lint
	@CGO_ENABLED=0 bin/lint -house .

bin/lint: $(wildcard .ci/lint/*)
	cd .ci/lint && CGO_ENABLED=0 $(GO) build -o $(CURDIR)/bin/lint .

vuln:
	@set -e; for m in $(MODULES); do echo "vuln $$m"; (cd $$m && $(GO) run $(GOVULNCHECK) ./...); done

# Each build has its own empty cache. With a shared cache the second build would be a copy of the first.
reproducible:
	@set -e; dir=$$(mktemp -d); trap 'rm -rf $$dir' EXIT; \
	  for i in one another/place; do \
	    mkdir -p $$dir/$$i; git ls-files -z | tar c --null -T - | tar x -C $$dir/$$i; \
	    (cd $$dir/$$i && GOCACHE=$$dir/cache CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -o $$dir/weir-$$(basename $$i) ./cmd/weir); \
	    rm -rf $$dir/cache; \
	  done; \
	  sha256sum $$dir/weir-one $$dir/weir-place; cmp $$dir/weir-one $$dir/weir-place && echo "the same"

mutate:
	@.ci/mutate

sim:
	@test -n "$(SEED)" || { echo "which seed? make sim SEED=7 SCHEDULE=3, or make sim SEED=7 SCHEDULES=200"; exit 2; }
	@cd peer/peertest/replay && $(GO) run . -seed $(SEED) $(if $(SCHEDULE),-schedule $(SCHEDULE)) $(if $(SCHEDULES),-schedules $(SCHEDULES)) \
	  $(if $(WITHOUT),-without $(WITHOUT)) $(SIMFLAGS)

controls:
	@cd peer/peertest/replay && $(GO) run . -controls '$(or $(CONTROLS),.)' $(SIMFLAGS)

soak:
	@mkdir -p bin
	cd peer/peertest/replay && $(GO) run . -soak $(SOAK) -failed $(CURDIR)/bin/soak-failed.txt $(SIMFLAGS)

test-replay:
	cd peer/peertest/replay && $(GO) test -count=1 -timeout 60m ./...

soak-native:
	@mkdir -p bin
	SIM_FAILED=$(CURDIR)/bin/soak-failed.txt $(GO) test -race -timeout 0 -v -run '^TestSim$$' ./peer/peertest -soak $(SOAK)

chaos:
	@[ "$$(id -u)" = 0 ] && command -v ip >/dev/null || { echo "make chaos needs root and the command ip: apt-get install iproute2"; exit 1; }
	@mkdir -p bin
	$(GO) build -race -o bin/chaos ./peer/peertest/chaos
	@bin/chaos $(CHAOSFLAGS)

demo:
	cd examples && $(GO) build -o ../bin/catalogue ./catalogue && cd .. && ./bin/catalogue $(DEMOFLAGS)

example-postgres:
	@for d in $$(echo "$$PATH" | tr : ' ') /usr/lib/postgresql/*/bin; do \
	  [ -x "$$d/initdb" ] && [ -x "$$d/postgres" ] && [ -x "$$d/psql" ] && exit 0; done; \
	  echo "make example-postgres needs PostgreSQL's programs initdb, postgres and psql: apt-get install postgresql"; exit 1
	cd examples && $(GO) run ./outbox $(EXAMPLEFLAGS)

bench:
	@mkdir -p bin bench/results
	cd bench/rivals && $(GO) build -buildvcs=true -o ../../bin/speed ./speed && ../../bin/speed $(if $(BENCHFLAGS),$(BENCHFLAGS),-out ../results/speed.json)
	$(if $(BENCHFLAGS),,@$(MAKE) bench-micro)

# The revision is that of the code: changed results and pages do not count.
bench-micro:
	@mkdir -p bin bench/results
	cd bench/rivals && $(GO) test -c -o ../../bin/micro.test ./micro
	@changed=$$(git status --porcelain -- ':!bench/results' ':!*.md'); \
	  echo "revision: $$(git rev-parse --short=12 HEAD)$${changed:++}" >bench/results/micro.txt
	@set -e; for i in $$(seq $(COUNT)); do \
	    echo "round $$i of $(COUNT)"; \
	    bin/micro.test -test.run '^$$' -test.bench '$(BENCH)' -test.cpu 1,2 -test.benchmem -test.benchtime $(BENCHTIME) -test.count 1 >>bench/results/micro.txt; \
	  done
	$(GO) run $(BENCHSTAT) -col /rival bench/results/micro.txt

browser:
	@for b in "$$CHROMIUM" chromium chromium-browser google-chrome google-chrome-stable; do \
	  [ -n "$$b" ] && command -v "$$b" >/dev/null && exit 0; done; \
	  echo "make browser needs Chromium: apt-get install chromium, or set CHROMIUM to where it is"; exit 1
	cd peer/page/browser && $(GO) test -count=1 -timeout 5m ./...

monitoring:
	@command -v promtool >/dev/null || { echo "make monitoring needs promtool: apt-get install prometheus"; exit 1; }
	cd examples && $(GO) test -count=1 ./monitoring

bench-rivals:
	@command -v redis-server >/dev/null || echo "redis-server is missing, Redis will not take part: apt-get install redis-server"
	@command -v memcached >/dev/null || echo "memcached is missing and will not take part: apt-get install memcached"
	cd bench/rivals && $(GO) run ./compare $(SCENARIO) $(BENCHFLAGS)

results:
	@.ci/results

bench-docs:
	$(GO) test ./bench/report -run TestDocuments -update

# The two take turns, so that a change of the machine's speed affects both.
bench-compare:
	@test -n "$(BASE)" || { echo "which revision? make bench-compare BASE=rev"; exit 2; }
	@set -e; dir=$$(mktemp -d); trap 'git worktree remove --force $$dir/base; rm -rf $$dir' EXIT; \
	  git worktree add -q --detach $$dir/base $(BASE); \
	  for i in $$(seq $(COUNT)); do \
	    echo "round $$i of $(COUNT)"; \
	    (cd $$dir/base && $(GO) test -run '^$$' -bench '$(BENCH)' -benchmem $(BENCHPKGS)) >>$$dir/base.txt; \
	    $(GO) test -run '^$$' -bench '$(BENCH)' -benchmem $(BENCHPKGS) >>$$dir/work.txt; \
	  done; \
	  cd $$dir && $(GO) run $(BENCHSTAT) base.txt work.txt

fuzz:
	@set -e; for pkg in cmd/weir codec peer/internal/roster peer/internal/wire tier bench/trace bench/scenario; do \
	  for f in $$($(GO) test -list '^Fuzz' ./$$pkg | grep '^Fuzz'); do \
	    echo "fuzz $$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s ./$$pkg; \
	  done; done

clean:
	rm -rf bin out
