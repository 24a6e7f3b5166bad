package counters_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weircache/weir/tier/internal/counters"
	"github.com/weircache/weir/tier/internal/placement"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Quantiles are accurate to about a tenth, and a Batch counts what Add would have counted one by one.
func TestQuantiles(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, seed))
	var h, same counters.Histogram
	var b counters.Batch
	var all []int64
	for range 20000 {
		ns := int64(math.Exp2(rnd.Float64()*30 + 17))
		h.Add(ns, 1)
		b.Add(&same, ns)
		all = append(all, ns)
	}
	b.Flush(&same)
	if h.Snapshot() != same.Snapshot() || h.Max.Load() != same.Max.Load() {
		t.Error("a batch counts otherwise than one by one")
	}
	slices.Sort(all)
	counts := h.Snapshot()
	for _, q := range []float64{0.01, 0.5, 0.9, 0.99} {
		exact := time.Duration(all[min(int(q*float64(len(all))), len(all)-1)]).Seconds()
		if got := counts.Quantile(q); math.Abs(got/exact-1) > 0.1 {
			t.Errorf("quantile %v: %v, want %v", q, got, exact)
		}
	}
	if counts.Total() != 20000 || counts.Under([]float64{counters.End(counters.Buckets - 1)})[counters.End(counters.Buckets-1)] != 20000 {
		t.Errorf("%d of 20000 counted", counts.Total())
	}
}

// The quantiles of ages forget what is older than a minute. The totals and the longest age do not.
func TestAgesForget(t *testing.T) {
	var a counters.Ages
	a.Served(counters.Owned, int64(time.Hour), 5)
	for now := int64(0); now <= int64(time.Minute); now += int64(time.Second) {
		a.Mark(now)
	}
	a.Served(counters.Owned, int64(time.Second), 1)
	got := a.Stats()
	if s := got[counters.Owned]; s.Answers != 6 || s.Max != 3600 || s.P99 > 1.2 || s.P50 < 0.8 {
		t.Errorf("%+v", s)
	}
	if got[counters.Near] != (counters.AgeStats{}) || got[counters.Fill] != (counters.AgeStats{}) {
		t.Errorf("%+v", got)
	}
}

// The quantiles look back for at least 30 s, and for less than a minute from the next mark on.
func TestAgesLookBack(t *testing.T) {
	var a counters.Ages
	for now := time.Duration(0); now <= 100*time.Second; now += time.Second {
		a.Mark(int64(now))
		if now == 31*time.Second {
			a.Served(counters.Near, int64(time.Hour), 1)
		}
		a.Served(counters.Near, int64(time.Second), 1)
		old := now >= 31*time.Second && now < 90*time.Second
		if s := a.Stats()[counters.Near]; (s.P99 > 3000) != old || (s.Max == 3600) != (now >= 31*time.Second) {
			t.Errorf("at %v: %+v", now, s)
		}
	}
}

// The rates look back for ten seconds, and for less after the start.
func TestRatesLookBack(t *testing.T) {
	var l counters.Ledger
	if got := l.Rates(5, 5, 0); got != (counters.LedgerRates{}) {
		t.Errorf("no time has passed: %+v", got)
	}
	for s := int64(1); s <= 40; s++ {
		reads := int64(110) // in the first second, and as many in the 21st
		if s > 20 {
			reads = 220
		}
		l.Mark(reads, 0, s*int64(time.Second))
		want := 0.0
		if s <= 10 {
			want = 110 / float64(s)
		} else if s > 20 && s <= 30 {
			want = 11
		}
		if got := l.Rates(reads, 0, s*int64(time.Second)).Reads; math.Abs(got-want) > 1e-9 {
			t.Errorf("after %d s: %v reads a second, want %v", s, got, want)
		}
	}
}

// Rates are measured from the oldest mark that is kept, and from the start until there is one.
func TestRates(t *testing.T) {
	second := int64(time.Second)
	var l counters.Ledger
	l.Running(+1, 0)
	for i := int64(1); i <= 30; i++ {
		l.Mark(100*i, 10*i, i*second)
		want := counters.LedgerRates{Reads: 100, Loads: 10, Busy: 1, Total: float64(i)}
		if got := l.Rates(100*i, 10*i, i*second); math.Abs(got.Reads-want.Reads)+math.Abs(got.Loads-want.Loads)+math.Abs(got.Busy-want.Busy)+math.Abs(got.Total-want.Total) > 1e-9 {
			t.Fatalf("after %d s: %+v, want %+v", i, got, want)
		}
	}
	l.Running(-1, 30*second)
	for i := int64(31); i <= 60; i++ {
		l.Mark(3000, 300, i*second)
	}
	if got := l.Rates(3000, 300, 60*second); got != (counters.LedgerRates{Total: 30}) {
		t.Errorf("a quiet cache has %+v", got)
	}
}

// A load's cost goes into the first bucket that holds it, and dependencies beyond MaxSteps are counted together.
func TestLoadsAndSteps(t *testing.T) {
	c := counters.New()
	c.Begun(placement.Cold, 0)
	c.Begun(placement.Fenced, 0)
	c.Observe(500*time.Microsecond, int64(time.Millisecond)) // the bound itself belongs to its bucket
	c.Observe(time.Minute, int64(time.Minute))
	if c.Loads() != 2 || c.Cost[0].Load() != 1 || c.Cost[len(counters.CostBounds)].Load() != 1 || math.Abs(c.MeanCost()-30.00025) > 1e-9 {
		t.Errorf("%d loads, costs %v, %v on average", c.Loads(), &c.Cost, c.MeanCost())
	}
	if r := c.Ledger.Rates(0, 0, int64(time.Hour)); math.Abs(r.Total-60.001) > 1e-9 {
		t.Errorf("one load ran for a millisecond and one for a minute, %v s in all", r.Total)
	}
	costs := counters.New()
	for i, bound := range counters.CostBounds {
		costs.Took(time.Duration(bound * float64(time.Second)))
		costs.Took(time.Duration(bound*float64(time.Second)) + 1)
		if costs.Cost[i].Load() != min(int64(i)+1, 2) || costs.Cost[i+1].Load() != 1 {
			t.Errorf("loads of %v s and more: %v", bound, &costs.Cost)
		}
	}
	for i := range counters.MaxSteps + 10 {
		c.Step(fmt.Sprint(i), time.Second, i%2 == 0)
	}
	c.Step("\xff", time.Second, false)
	steps := c.StepStats()
	if s := steps[counters.OtherStep]; len(steps) != counters.MaxSteps+1 || s.Calls != 11 || s.Errors != 5 || s.Seconds != 11 || s.Max != 1 {
		t.Errorf("%d steps, other %+v", len(steps), s)
	}
	c.Owned.Add(5)
	c.Filled.Add(2)
	c.Errors.Add(1)
	c.Asked.Add(5)
	c.ServedPeers.Add(10)
	if n := c.OwnedReads(); n != 13 {
		t.Errorf("%d reads reached the owned tier", n)
	}
}
