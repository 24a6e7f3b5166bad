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
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "run only the schedule of this seed")
	seedsFlag = flag.Int("seeds", 200, "how many seeds to run")
	firstFlag = flag.Uint64("first", 1, "the first of them")
	soakFlag  = flag.Duration("soak", 0, "run seed after seed for this long, from one that the clock gives")
	shardFlag = flag.String("shard", "", "run the seeds in this process, and write the figures to this file")
)

func TestMain(m *testing.M) {
	if os.Getenv(nodeName) != "" {
		os.Exit(nodeMain())
	}
	goleak.VerifyTestMain(m)
}

// summary is what the schedules of some seeds came to.
type summary struct {
	Seeds, Reads, Failed, Loads, Invalidations, Confirmed, Violations int
	Faults                                                            int64
	Virtual                                                           time.Duration
}

func (s *summary) add(o summary) {
	s.Seeds += o.Seeds
	s.Reads += o.Reads
	s.Failed += o.Failed
	s.Loads += o.Loads
	s.Invalidations += o.Invalidations
	s.Confirmed += o.Confirmed
	s.Violations += o.Violations
	s.Faults += o.Faults
	s.Virtual += o.Virtual
}

func (s summary) String() string {
	return fmt.Sprintf("simulator: %d seeds, %v of virtual time, %d faults injected, %d reads checked (%d got an error), %d loads, %d invalidations (%d confirmed), %d violations",
		s.Seeds, s.Virtual.Round(time.Second), s.Faults, s.Reads, s.Failed, s.Loads, s.Invalidations, s.Confirmed, s.Violations)
}

// TestSim plays the schedules of many seeds on five nodes, about two virtual minutes each. Repeat
// one with: go test ./peer/peertest -run Sim -seed N. Bubbles take one processor each, so the
// seeds are shared out to as many processes as there are processors.
func TestSim(t *testing.T) {
	switch {
	case *seedFlag != 0:
		var s summary
		simulate(t, Options{Seed: *seedFlag}, &s)
		t.Log(s)
		return
	case *shardFlag != "":
		var s summary
		end := time.Now().Add(*soakFlag)
		for i := 0; i < *seedsFlag || time.Now().Before(end); i++ {
			seed := *firstFlag + uint64(i)
			t.Run(fmt.Sprint(seed), func(t *testing.T) { simulate(t, Options{Seed: seed}, &s) })
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
			s := runShard(t, fmt.Sprintf("%s/%d.json", dir, i), first+uint64(i)*1e6, *seedsFlag*(i+1)/shards-*seedsFlag*i/shards)
			mu.Lock()
			defer mu.Unlock()
			all.add(s)
		})
	}
	wg.Wait()
	t.Log(all)
	if path := os.Getenv("SIM_SUMMARY"); path != "" {
		if err := os.WriteFile(path, []byte(all.String()+"\n"), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// runShard runs seeds in a process of their own.
func runShard(t *testing.T, file string, first uint64, seeds int) (s summary) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestSim$", "-test.timeout", "0",
		"-shard", file, "-first", fmt.Sprint(first), "-seeds", fmt.Sprint(seeds), "-soak", soakFlag.String())
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
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

// keepSeed appends a seed that failed to the file that SIM_FAILED names, if it is set.
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

// simulate plays the schedule of a seed, reports what it broke and adds its figures to sum.
func simulate(t *testing.T, o Options, sum *summary) {
	t.Helper()
	Bubble(t, func(t *testing.T) {
		began := time.Now()
		c := New(o)
		if err := c.Run(t.Context(), Plan{}); err != nil {
			t.Errorf("seed %d: %v", o.Seed, err)
		}
		violations := c.History.Check(c.Rules())
		for _, v := range violations {
			t.Errorf("seed %d: %v", o.Seed, v)
		}
		if t.Failed() {
			keepSeed(t, o.Seed)
		}
		f := c.History.Figures()
		sum.add(summary{
			Seeds: 1, Reads: f.Reads, Failed: f.Failed, Loads: f.Loads, Invalidations: f.Invalidations, Confirmed: f.Confirmed,
			Violations: len(violations), Faults: c.Net.Faults().Total(), Virtual: time.Since(began),
		})
	})
}
