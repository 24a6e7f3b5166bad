package bench

import (
	"context"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/dgraph-io/ristretto/v2"

	"github.com/weircache/weir/tier"
)

// Guards against unnoticed regressions. They cover only what does not depend on the machine: allocations, and
// ratios to a floor that is measured in the same run. The bounds are generous: the aim for a near hit is 1.15 times
// the floor. Other load on the machine can still distort a ratio, so the guards of ratios are long tests.

const guardKeys = 4096

func guardCache(t *testing.T) (*tier.Cache[[]byte], []string) {
	t.Helper()
	config := bytesConfig("guard")
	config.NearBytes, config.Freshness.NearTTL = 0, time.Hour
	c := alone(t, config)
	keys := make([]string, guardKeys)
	for i := range keys {
		keys[i] = "guard:" + strconv.Itoa(i)
	}
	near(t, c, keys)
	return c, keys
}

// near gets all keys until they have near copies: the near tier may drop entries that arrive in a burst.
func near(t *testing.T, c *tier.Cache[[]byte], keys []string) {
	t.Helper()
	for range 1000 {
		before := c.Stats().Near
		for _, k := range keys {
			if _, err := c.Get(t.Context(), k); err != nil {
				t.Fatal(err)
			}
		}
		if c.Stats().Near-before == int64(len(keys)) {
			return
		}
	}
	t.Fatal("the near tier does not hold all keys")
}

func TestGuardNearHitAllocatesNothing(t *testing.T) {
	c, keys := guardCache(t)
	ctx, i := context.Background(), 0
	if n := testing.AllocsPerRun(10_000, func() {
		_, _ = c.Get(ctx, keys[i%guardKeys])
		i++
	}); n != 0 {
		t.Errorf("%v allocations for a near hit", n)
	}
}

// timed runs a body of n calls, and counts its time and its allocations.
func timed(n int, body func(n int) error) (Sample, error) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	err := body(n)
	elapsed := time.Since(began)
	runtime.ReadMemStats(&after)
	return Sample{Calls: int64(n), Elapsed: elapsed, Allocs: float64(after.Mallocs-before.Mallocs) / float64(n)}, err
}

func nanos(s Sample) float64 { return float64(s.Elapsed) / float64(s.Calls) }

// medianRatio returns the median of the ratios of the time of a call, round by round.
func medianRatio(a, b Results) float64 { return Median(Row{Rounds: a.Beside(b, nanos)}.of(ratio)) }

func TestGuardNearHitBesideTheFloorLong(t *testing.T) {
	c, keys := guardCache(t)
	raw, err := ristretto.NewCache(&ristretto.Config[string, []byte]{NumCounters: 10 * guardKeys, MaxCost: guardKeys, BufferItems: 64, IgnoreInternalCost: true})
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	for _, k := range keys {
		for ok := false; !ok; _, ok = raw.Get(k) {
			raw.Set(k, make([]byte, 256), 1)
			raw.Wait()
		}
	}
	ctx := context.Background()
	results, err := Rounds(7,
		Contender{"weir", func() (Sample, error) {
			return timed(20*guardKeys, func(n int) error {
				for i := range n {
					if _, err := c.Get(ctx, keys[i%guardKeys]); err != nil {
						return err
					}
				}
				return nil
			})
		}},
		Contender{"raw", func() (Sample, error) {
			return timed(20*guardKeys, func(n int) error {
				for i := range n {
					raw.Get(keys[i%guardKeys])
				}
				return nil
			})
		}})
	if err != nil {
		t.Fatal(err)
	}
	// This few keys stay in the processor's cache, where the floor is lowest: 3.1 was measured, 1.6 with the race
	// detector. An extra lock, allocation or system call would exceed the bound.
	const most = 6
	if r := medianRatio(results["weir"], results["raw"]); r > most {
		t.Errorf("a near hit takes %.2f times a raw ristretto get, more than %d", r, most)
	} else {
		t.Logf("a near hit takes %.2f times a raw ristretto get", r)
	}
}

// TestGuardFillAllocations checks that a single load's allocations, apart from the value, are bounded.
func TestGuardFillAllocations(t *testing.T) {
	c, _ := guardCache(t)
	ctx := context.Background()
	keys := make([]string, 2100)
	for i := range keys {
		keys[i] = "cold:" + strconv.Itoa(i)
	}
	i := 0
	const most = 60
	n := testing.AllocsPerRun(2000, func() {
		_, _ = c.Get(ctx, keys[i])
		i++
	})
	if n > most {
		t.Errorf("%v allocations for a fill, more than %d", n, most)
	}
	t.Logf("%v allocations for a fill", n)
}
