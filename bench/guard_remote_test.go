package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/dgraph-io/ristretto/v2"
)

// Guards of what travels between nodes. All nodes are in this process, so that the allocations of both sides count.

// echoFloor answers requests of 40 bytes with size bytes over TCP on the loopback, and returns a function that
// sends one request.
func echoFloor(t *testing.T, size int) func() error {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served error
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := l.Accept()
		if err != nil {
			served = err
			return
		}
		defer func() { _ = c.Close() }()
		request, answer := make([]byte, 40), make([]byte, size)
		for {
			if _, err := io.ReadFull(c, request); err != nil {
				if !errors.Is(err, io.EOF) {
					served = err
				}
				return
			}
			if _, err := c.Write(answer); err != nil {
				served = err
				return
			}
		}
	})
	c, err := net.Dial("tcp", l.Addr().String())
	t.Cleanup(func() {
		if c != nil {
			_ = c.Close()
		}
		_ = l.Close()
		wg.Wait()
		if served != nil {
			t.Error(served)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	request, answer := make([]byte, 40), make([]byte, size)
	return func() error {
		if _, err := c.Write(request); err != nil {
			return err
		}
		_, err := io.ReadFull(c, answer)
		return err
	}
}

// guarded is the cost of a call.
type guarded struct {
	allocs float64
	ratio  float64 // of its time to the floor's
}

// guard lets weir and the floor take turns. It returns weir's allocations per call and the ratio of weir's time to
// the floor's. The bounds of the ratios, which the long tests check, are five times what was measured with the race
// detector. The detector slows weir but not the kernel, which does most of the floor's work. A wait, a connection
// per call or a lock held across a call would exceed the bounds.
func guard(t *testing.T, what string, calls int, weir, floor func() error) guarded {
	t.Helper()
	turn := func(call func() error) func() (Sample, error) {
		return func() (Sample, error) {
			return timed(calls, func(n int) error {
				for range n {
					if err := call(); err != nil {
						return err
					}
				}
				return nil
			})
		}
	}
	got, err := Rounds(7, Contender{"weir", turn(weir)}, Contender{"floor", turn(floor)})
	if err != nil {
		t.Fatal(err)
	}
	cost := guarded{allocs: Median(Row{Rounds: got["weir"].Beside(nil, Allocs)}.of(result)), ratio: medianRatio(got["weir"], got["floor"])}
	t.Logf("%s: %.1f allocations, %.2f times the floor", what, cost.allocs, cost.ratio)
	return cost
}

func (g guarded) mustAllocate(t *testing.T, most float64) {
	t.Helper()
	if g.allocs > most {
		t.Errorf("%.1f allocations, more than %v", g.allocs, most)
	}
}

func (g guarded) mustTake(t *testing.T, most float64) {
	t.Helper()
	if g.ratio > most {
		t.Errorf("%.2f times the floor, more than %v", g.ratio, most)
	}
}

func TestGuardRemoteHit(t *testing.T)     { remoteHit(t).mustAllocate(t, 8) }
func TestGuardRemoteHitLong(t *testing.T) { remoteHit(t).mustTake(t, 60) }

func remoteHit(t *testing.T) guarded {
	t.Helper()
	caches := manyCaches(t, 2)
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = "many:" + strconv.Itoa(i)
	}
	at := slices.IndexFunc(keys, func(k string) bool { return caches[0].Node.View().Owner(k).Name != "n0" })
	if at < 0 {
		t.Fatal("the other node owns no key")
	}
	c, ctx := caches[0].Cache, context.Background()
	return guard(t, "a remote hit", 500, func() error {
		_, err := c.Get(ctx, keys[at])
		return err
	}, echoFloor(t, 256))
}

func TestGuardGetMany(t *testing.T)     { getMany(t).mustAllocate(t, 250) }
func TestGuardGetManyLong(t *testing.T) { getMany(t).mustTake(t, 120) }

func getMany(t *testing.T) guarded {
	t.Helper()
	c, ctx := manyCaches(t, 3)[0].Cache, context.Background()
	keys := make([]string, 100)
	for i := range keys {
		keys[i] = "many:" + strconv.Itoa(i)
	}
	return guard(t, "GetMany of 100", 100, func() error {
		got, err := c.GetMany(ctx, keys)
		if err == nil && len(got) != len(keys) {
			err = fmt.Errorf("%d values", len(got))
		}
		return err
	}, echoFloor(t, 100*256))
}

// TestGuardFillBesideTheFloorLong compares a fill with its floor, a Set of a new key.
func TestGuardFillBesideTheFloorLong(t *testing.T) {
	c, _ := guardCache(t)
	raw, err := ristretto.NewCache(&ristretto.Config[string, []byte]{NumCounters: 100_000, MaxCost: 10_000, BufferItems: 64, IgnoreInternalCost: true})
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	ctx, i, j := context.Background(), 0, 0
	cost := guard(t, "a fill", 500, func() error {
		i++
		_, err := c.Get(ctx, "new:"+strconv.Itoa(i))
		return err
	}, func() error {
		j++
		raw.Set("new:"+strconv.Itoa(j), make([]byte, 256), 1)
		raw.Wait()
		return nil
	})
	cost.mustAllocate(t, 60)
	cost.mustTake(t, 60)
}
