package peertest

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/peer/netsim"
	"github.com/weircache/weir/tier"
)

var (
	seedFlag    = flag.Uint64("seed", 0, "run only the schedule of this seed")
	seedsFlag   = flag.Int("seeds", 16, "how many seeds TestSim runs")
	firstFlag   = flag.Uint64("first", 1, "the first of them")
	soakFlag    = flag.Duration("soak", 0, "run seed after seed for this long, from one that the clock gives")
	briefFlag   = flag.Bool("brief", false, "with -seed: a short schedule on three nodes")
	withoutFlag = flag.String("without", "", "with -seed: the numbers of faults to leave out, with commas between them")
	reportFlag  = flag.Bool("report", false, "with -seed: print a line of JSON that says what happened")
	controlFlag = flag.String("control", "", "with -seed: run this control instead of the schedule of the seed; list: print the names of all as JSON")
	shardFlag   = flag.String("shard", "", "run the seeds in this process, and write the figures to this file")
)

// TestMain leaves the long tests to make test-long, unless -run or -skip chooses.
func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == "" {
		if err := flag.Set("test.skip", "^Test.*Long$"); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

// contracts are used in turn by the seeds: short-lived copies that may be served stale; long-lived ones; no staleness at
// all; and mostly stale ones.
var contracts = []tier.Freshness{
	{TTL: 2 * time.Second, StaleWhileRevalidate: 3 * time.Second, StaleIfError: 6 * time.Second, NearTTL: 500 * time.Millisecond},
	{TTL: time.Hour, NearTTL: time.Minute},
	{TTL: 4 * time.Second, NearTTL: 4 * time.Second, RefreshAhead: -1, Jitter: -1},
	{TTL: time.Second, StaleWhileRevalidate: 5 * time.Second, StaleIfError: 20 * time.Second, NearTTL: 200 * time.Millisecond, ErrorTTL: 100 * time.Millisecond},
}

// loadTimeouts are the limits on the duration of a load: shorter than every timer of the members, and longer than every
// one.
var loadTimeouts = []time.Duration{time.Second, 2 * time.Second, time.Second, 5 * time.Second, time.Second, 45 * time.Second}

// seeded returns the cluster and the plan of a seed. One cluster in eight is encrypted. One in eight must divide its cap by
// the members that it remembers, which a restarted node does not. Three clusters in five are small, with short schedules.
//
// A member that has flapped rests for at most three times HoldDown, which does not exceed the aftermath of the faults.
func seeded(seed uint64) (Options, Plan) {
	o, p := Options{Seed: seed, Freshness: contracts[seed%uint64(len(contracts))], HoldDown: 3 * time.Second}, Plan{}
	if seed%3 == 0 {
		o.Replicas = 1
	}
	if seed%7 < 3 {
		o.Zones = 2
	}
	if seed%9 < 3 {
		o.LongTTL = 20 * time.Minute
		if seed%2 == 0 {
			o.Freshness.MaxTTL = max(o.LongTTL, o.Freshness.TTL)
		}
	}
	switch seed % 8 {
	case 5:
		o.Secret = bytes.Repeat([]byte{byte(seed), 7}, peer.SecretSize/2)
	case 6:
		o.MinMembers, p.Steady = 1, true
	}
	o.Nested = seed%11 < 4
	o.Timeout = loadTimeouts[seed/4%uint64(len(loadTimeouts))]
	if seed%5 > 1 {
		o.Nodes = 3
		p.Calm, p.Faults, p.After = 6*time.Second, 25*time.Second, 14*time.Second
		p.Keys, p.Clients, p.Storms = 30, 2, 1200*time.Millisecond
	}
	return o, p
}

// summary is the result of the schedules of some seeds.
type summary struct {
	Seeds, Violations int
	Virtual           time.Duration
	Figures           Figures
	Network           netsim.Counts
	Clocks, Outages   int64
	Kinds             map[string]int64 // of the plan
	Failed            []uint64         // seeds
}

func (s *summary) add(o summary) {
	s.Seeds += o.Seeds
	s.Violations += o.Violations
	s.Virtual += o.Virtual
	s.Figures.Add(o.Figures)
	s.Network.Add(o.Network)
	s.Clocks += o.Clocks
	s.Outages += o.Outages
	if s.Kinds == nil {
		s.Kinds = make(map[string]int64)
	}
	for kind, n := range o.Kinds {
		s.Kinds[kind] += n
	}
	s.Failed = append(s.Failed, o.Failed...)
}

// counters returns the figures that make test shows at its end.
func (s summary) counters() map[string]int64 {
	return map[string]int64{"seeds": int64(s.Seeds), "faults": s.faults(), "reads": int64(s.Figures.Reads), "violations": int64(s.Violations)}
}

func (s summary) faults() int64 { return int64(s.Network.Total()) + s.Clocks + s.Outages }

func (s summary) String() string {
	f, n := s.Figures, s.Network
	return fmt.Sprintf("simulator: %d seeds, %v of virtual time, %d faults injected, %d reads checked (%d got an error), %d loads, %d invalidations (%d confirmed, %d by all who were up), %d violations\n"+
		"faults: packets dropped %d, doubled %d, late %d; connections stalled %d, broken %d, half-closed %d; ways clogged %d; nodes paused %d, killed %d; clocks set %d; outages of the origin %d; as planned: %v",
		s.Seeds, s.Virtual.Round(time.Second), s.faults(), f.Reads, f.Failed, f.Loads, f.Invalidations, f.Confirmed, f.Whole, s.Violations,
		n.Dropped, n.Duplicated, n.Delayed, n.Stalled, n.Broken, n.HalfClosed, n.Clogged, n.Paused, n.Crashed, s.Clocks, s.Outages, s.Kinds)
}

// TestSim plays the schedules of some seeds, and TestSimLong those of 500. Two in five run on five nodes for about two
// virtual minutes, the others on three nodes for some 45 seconds. Repeat one with: go test ./peer/peertest -run '^TestSim$'
// -seed N. Bubbles take one processor each, so the seeds are distributed to as many processes as there are processors.
func TestSim(t *testing.T) {
	switch {
	case *controlFlag == "list":
		printControls(t)
		return
	case *seedFlag != 0:
		var s summary
		var r report
		defer func() { // a failing bubble ends the test
			t.Log(s)
			b, err := json.Marshal(r)
			if err != nil {
				t.Error(err)
			}
			if *reportFlag {
				fmt.Printf("report %s\n", b)
			}
		}()
		simulate(t, *seedFlag, &s, &r)
		return
	case *shardFlag != "":
		var s summary
		end := time.Now().Add(*soakFlag)
		for i := 0; i < *seedsFlag || time.Now().Before(end); i++ {
			seed := *firstFlag + uint64(i)
			t.Run(fmt.Sprint(seed), func(t *testing.T) { simulate(t, seed, &s, new(report)) })
		}
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(*shardFlag, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	playSeeds(t, *seedsFlag)
}

func TestSimLong(t *testing.T) { playSeeds(t, 500) }

// playSeeds plays seeds in separate processes and returns the sum of their figures.
func playSeeds(t *testing.T, seeds int) {
	t.Helper()
	var all summary
	var mu sync.Mutex // guards all
	var wg sync.WaitGroup
	dir, shards := t.TempDir(), runtime.NumCPU()
	first := *firstFlag
	if *soakFlag > 0 {
		first = uint64(time.Now().UnixNano())
	}
	for i := range shards {
		wg.Go(func() {
			s := runShard(t, fmt.Sprintf("%s/%d.json", dir, i), first+uint64(i)*1e6, seeds*(i+1)/shards-seeds*i/shards)
			mu.Lock()
			defer mu.Unlock()
			all.add(s)
		})
	}
	wg.Wait()
	t.Log(all)
	for name, n := range all.counters() {
		t.Attr(name, fmt.Sprint(n))
	}
	trySchedules(t, all.Failed)
	if path := os.Getenv("SIM_SUMMARY"); path != "" {
		if err := os.WriteFile(path, []byte(all.String()+"\n"), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// runShard runs seeds in a separate process.
func runShard(t *testing.T, file string, first uint64, seeds int) (s summary) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestSim$", "-test.timeout", "0",
		"-shard", file, "-first", fmt.Sprint(first), "-seeds", fmt.Sprint(seeds), "-soak", soakFlag.String())
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=400")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, bytes.TrimSpace(out))
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Errorf("the seeds from %d on left no figures: %v", first, err)
		return s
	}
	if err := json.Unmarshal(b, &s); err != nil {
		t.Error(err)
	}
	return s
}

// keepSeed appends a failed seed to the file that SIM_FAILED names, if that is set.
func keepSeed(t *testing.T, seed uint64) {
	path := os.Getenv("SIM_FAILED")
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Error(err)
		return
	}
	_, err = fmt.Fprintln(f, seed)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Error(err)
	}
}

// report is the result of one schedule. The module replay reads it.
type report struct {
	Digest  string   // stands for everything that happened
	Faults  int      // how many the plan reached, including those that were left out
	Broken  []broken // violations
	First   *sighting
	Failed  []string // other failures
	Summary string
}

// broken is a violation with the part of the history that shows it.
type broken struct{ What, History string }

// simulate plays the schedule of a seed, reports violations to t and in r, and adds its figures to sum.
func simulate(t *testing.T, seed uint64, sum *summary, r *report) {
	t.Helper()
	o, p := seeded(seed)
	before := func(*Cluster) {}
	if *controlFlag != "" {
		o, p, before = controlOf(t, *controlFlag, seed)
	}
	if *briefFlag {
		o.Nodes = 3
		p.Calm, p.Faults, p.After = 2*time.Second, 10*time.Second, 2*time.Second
	}
	for number := range strings.SplitSeq(*withoutFlag, ",") {
		if number == "" {
			continue
		}
		n, err := strconv.Atoi(number)
		if err != nil {
			t.Fatalf("-without takes numbers with commas between them: %v", err)
		}
		p.Without = append(p.Without, n)
	}
	Bubble(t, func(t *testing.T) {
		began := time.Now()
		fail := func(format string, args ...any) {
			r.Failed = append(r.Failed, fmt.Sprintf(format, args...))
			t.Errorf("seed %d: %s", seed, r.Failed[len(r.Failed)-1])
		}
		c := New(o)
		before(c)
		if err := c.Run(t.Context(), p); err != nil {
			fail("%v", err)
		}
		found := c.History.Check(c.Rules())
		r.First = c.History.first(found, began)
		for _, v := range found {
			r.Broken = append(r.Broken, broken{v.Guarantee + " is broken: " + v.Text, v.History})
			t.Errorf("seed %d: %v", seed, v)
		}
		one := summary{Seeds: 1, Violations: len(r.Broken), Virtual: time.Since(began), Figures: c.History.Figures()}
		one.Network, one.Clocks, one.Outages = c.Faults()
		one.Kinds = c.Kinds()
		sum.add(one)
		sleep(t.Context(), time.Minute)
		if left := Leaked(); len(left) > 0 {
			fail("G11 is broken: %d goroutines are left, the first is\n%s", len(left), left[0])
		}
		if t.Failed() {
			sum.Failed = append(sum.Failed, seed)
			keepSeed(t, seed)
			t.Logf("repeat it with: go test -race ./peer/peertest -run '^TestSim$' -seed %d\nif it does not come back, look for goroutines that take turns as they did here: make sim SEED=%d SCHEDULES=200", seed, seed)
		}
		r.Digest, r.Faults, r.Summary = fmt.Sprintf("%016x", c.Digest()), c.Planned(), one.String()
	})
}
