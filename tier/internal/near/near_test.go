package near_test

import (
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"unsafe"

	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/tier/internal/near"

	"github.com/dgraph-io/ristretto/v2"
)

type testBox struct{ key, version int }

// The types of ristretto's values and configuration in a near tier of *testBox.
type (
	testEntry  = near.Entry[*testBox]
	testConfig = ristretto.Config[uint64, *testEntry]
)

// tunedNear returns a near tier of 1 MiB.
func tunedNear(t testing.TB, tune func(*testConfig)) *pointerNear {
	t.Helper()
	of, err := near.NewTuned(1<<20, tune)
	if err != nil {
		t.Fatal(err)
	}
	return &pointerNear{of: of, box: int64(unsafe.Sizeof(testBox{}))}
}

// rawRistretto returns the ristretto cache that near wraps. It calls before for each box whose set it is about to
// apply.
func rawRistretto(t testing.TB, before func(*testBox)) *ristretto.Cache[string, *testBox] {
	t.Helper()
	c, err := ristretto.NewCache(&ristretto.Config[string, *testBox]{
		NumCounters: 1 << 12, MaxCost: 1 << 20, BufferItems: 64, IgnoreInternalCost: true,
		Cost: func(b *testBox) int64 { before(b); return 1 },
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The tests of ristretto's traps fail when ristretto no longer has them. Then near can be simpler.

func TestRistrettoTrapSetSet(t *testing.T) {
	stuck, free := &testBox{}, make(chan struct{})
	c := rawRistretto(t, func(b *testBox) {
		if b == stuck {
			<-free
		}
	})
	defer c.Close()
	old, fresh := &testBox{version: 1}, &testBox{version: 2}
	c.Set("stuck", stuck, 0)
	c.Set("k", old, 0)
	c.Set("k", fresh, 0)
	close(free)
	c.Wait()
	if got, _ := c.Get("k"); got != old {
		t.Errorf("get = %v; ristretto no longer keeps the old value when a set is pending", got)
	}
}

func TestNearSetSet(t *testing.T) {
	free := make(chan struct{})
	n := tunedNear(t, func(cfg *testConfig) {
		reject := cfg.OnReject
		cfg.OnReject = func(item *ristretto.Item[*testEntry]) { <-free; reject(item) }
	})
	defer n.close()
	old, fresh, later := &testBox{version: 1}, &testBox{version: 2}, &testBox{version: 3}
	n.set("stuck", &testBox{}, 1<<30) // rejected for its cost: ristretto waits in OnReject
	n.set("k", old, 0)
	n.set("k", fresh, 0)
	if got := n.get("k"); got != nil {
		t.Errorf("get = %v while both sets are pending", got)
	}
	close(free)
	n.of.Wait()
	// Ristretto decides which of the two it keeps: the caller tests the box, and sets it again.
	if got := n.get("k"); got != old && got != fresh {
		t.Errorf("get = %v, want one of the boxes that were set", got)
	}
	n.set("k", later, 0)
	if got := n.get("k"); got != later {
		t.Errorf("get = %v after a set of a key that is there, want the new box at once", got)
	}
	if s := n.stats(); s.Rejected != 2 || s.Dropped != 0 || s.Hits != 2 || s.Misses() != 1 {
		t.Errorf("stats %+v, want the stuck and the lost set as rejected, 2 hits, 1 miss", s)
	}
}

func TestRistrettoTrapDel(t *testing.T) {
	a, b := &testBox{version: 1}, &testBox{}
	freeA, atB, freeB := make(chan struct{}), make(chan struct{}), make(chan struct{})
	c := rawRistretto(t, func(box *testBox) {
		if box == a {
			<-freeA
		} else {
			close(atB)
			<-freeB
		}
	})
	defer c.Close()
	c.Set("k", a, 0) // delayed
	c.Set("other", b, 0)
	c.Del("k")
	close(freeA)
	<-atB // the set of k has been applied, but the Del has not
	if _, ok := c.Get("k"); !ok {
		t.Error("ristretto's Del is no longer overtaken by a pending set")
	}
	close(freeB)
	c.Wait()
	if _, ok := c.Get("k"); ok {
		t.Error("the value is there for good")
	}
}

func TestNearDelAgainstSet(t *testing.T) {
	n := tunedNear(t, nil)
	defer n.close()
	box := &testBox{version: 1}
	n.set("k", box, 0)
	n.del("k")
	n.of.Wait()
	if got := n.get("k"); got != nil {
		t.Errorf("set, del, get = %v once all is applied", got)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 2_000 {
				n.set("k", box, 0)
				n.del("k")
				if got := n.get("k"); got != nil && got != box {
					t.Errorf("get = %v, which was never set", got)
				}
			}
		})
	}
	wg.Wait()
}

// A Set that runs inside ristretto while ristretto is closed panics.
func TestRistrettoTrapClose(t *testing.T) {
	inside, free := make(chan struct{}), make(chan struct{})
	var once sync.Once
	c, err := ristretto.NewCache(&ristretto.Config[string, *testBox]{
		NumCounters: 1 << 12, MaxCost: 1 << 20, BufferItems: 64,
		KeyToHash: func(string) (uint64, uint64) {
			once.Do(func() { close(inside); <-free })
			return 1, 1
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	panicked := make(chan any)
	go func() {
		defer func() { panicked <- recover() }()
		c.Set("k", &testBox{}, 1)
	}()
	<-inside
	c.Close()
	close(free)
	if <-panicked == nil {
		t.Error("ristretto no longer panics when it is closed during a Set")
	}
}

func TestNearCloseWaits(t *testing.T) {
	calls := map[string]func(*pointerNear){
		"get": func(n *pointerNear) { n.get("k") },
		"set": func(n *pointerNear) { n.set("k", &testBox{}, 1) },
		"del": func(n *pointerNear) { n.del("k") },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				inside, free := make(chan struct{}), make(chan struct{})
				n := tunedNear(t, func(cfg *testConfig) {
					cfg.KeyToHash = func(hash uint64) (uint64, uint64) {
						close(inside)
						<-free
						return hash, 0
					}
				})
				go call(n)
				<-inside
				closed := make(chan struct{})
				go func() { defer close(closed); n.close() }()
				synctest.Wait() // the closer sleeps until its next check
				select {
				case <-closed:
					t.Error("close did not wait for a call inside ristretto")
				default:
				}
				// A call that comes now is turned away and does not wait.
				if n.get("k") != nil {
					t.Error("get found something while closing")
				}
				n.set("k", &testBox{}, 1)
				n.del("k")
				close(free)
				<-closed
			})
		})
	}
}

func TestNearCloseRace(t *testing.T) {
	for range 30 {
		n := tunedNear(t, nil)
		var wg sync.WaitGroup
		var began sync.WaitGroup
		var stop atomic.Bool
		for w := range 16 {
			began.Add(1)
			wg.Go(func() {
				box := &testBox{}
				for i := 0; !stop.Load(); i++ {
					key := numbered(i*7 + w)
					n.set(key, box, 10)
					for range 70 { // enough for the goroutines to hand over ristretto's read buffers
						n.get(key)
					}
					n.del(key)
					if i%16 == 0 {
						n.stats()
						n.clear()
					}
					if i == 2 {
						began.Done()
					}
				}
			})
		}
		began.Wait()
		var closers sync.WaitGroup
		for range 3 {
			closers.Go(n.close)
		}
		closers.Wait()
		if n.get("k") != nil {
			t.Error("get found something after close")
		}
		stop.Store(true)
		wg.Wait()
		if cells := n.of.Unbalanced(); cells != 0 {
			t.Fatalf("%d cells have not as many calls out as in", cells)
		}
	}
}

func TestNearBurst(t *testing.T) {
	free := make(chan struct{})
	n := tunedNear(t, func(cfg *testConfig) {
		reject := cfg.OnReject
		cfg.OnReject = func(item *ristretto.Item[*testEntry]) { <-free; reject(item) }
	})
	defer n.close()
	n.set("stuck", &testBox{}, 1<<30)
	const buffer, more = 32 << 10, 1000 // ristretto's buffer of sets
	for i := range buffer + more {
		n.set(numbered(i), &testBox{key: i}, 0)
	}
	// One set may have left the buffer before it was full: the stuck one.
	if d := n.stats().Dropped; d < more || d > more+1 {
		t.Errorf("%d sets were dropped, want %d", d, more)
	}
	close(free)
	n.of.Wait()
	found := 0
	for i := range buffer + more {
		if b := n.get(numbered(i)); b != nil {
			found++
			if b.key != i {
				t.Fatalf("key %d has the box of %d", i, b.key)
			}
		}
	}
	s := n.stats()
	if found == 0 || s.Hits != int64(found) || s.Hits+s.Misses() != buffer+more {
		t.Errorf("found %d, stats %+v", found, s)
	}
	if s.Bytes <= 0 || s.Bytes > 1<<20 {
		t.Errorf("%d bytes in use of %d", s.Bytes, 1<<20)
	}
}

func TestNearEvicts(t *testing.T) {
	n := tunedNear(t, nil)
	defer n.close()
	for i := range 10_000 {
		n.set(numbered(i), &testBox{}, 1000)
		n.of.Wait()
	}
	s := n.stats()
	if s.Evicted == 0 || s.Bytes > 1<<20 || s.Bytes < 1<<19 {
		t.Errorf("stats %+v, want evictions and a tier of %d bytes about full", s, 1<<20)
	}
	n.clear()
	if s := n.stats(); s.Bytes != 0 {
		t.Errorf("%d bytes in use after clear", s.Bytes)
	}
	n.set("k", &testBox{version: 1}, 0)
	n.of.Wait()
	if b := n.get("k"); b == nil || b.version != 1 {
		t.Errorf("get = %v after clear and set", b)
	}
}

func TestNearOff(t *testing.T) {
	var n *pointerNear
	n.set("k", &testBox{}, 1)
	n.del("k")
	n.clear()
	if n.get("k") != nil || n.stats() != (near.Stats{}) {
		t.Error("a near tier that is off has something")
	}
	n.close()
	var of *near.Tier[int]
	of.Set("k", 1, 1)
	of.Del("k")
	of.Clear()
	of.Wait()
	if of.Get("k") != nil || of.InFront("k") != nil || of.Hits() != 0 || of.Calls() != 0 || of.Stats() != (near.Stats{}) {
		t.Error("a near tier that is off has something")
	}
	of.Close()
}

func TestNearByValue(t *testing.T) {
	n, err := near.New[testBox](1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	n.Set("zero", testBox{}, 10)
	n.Wait()
	zero := n.Stats().Bytes
	if least := 10 + near.Overhead + int64(unsafe.Sizeof(testBox{})); zero < least || zero > least+64 {
		t.Errorf("%d bytes for a box with 10, want little more than %d", zero, least)
	}
	n.Set("one", testBox{key: 1}, 10)
	n.Wait()
	if b := n.Get("zero"); b == nil || *b != (testBox{}) {
		t.Errorf("get = %v: a zero box is a box", b)
	}
	if b := n.Get("one"); b == nil || b.key != 1 {
		t.Errorf("get = %v", b)
	}
	if b := n.Get("none"); b != nil {
		t.Errorf("get = %v of a key that was never set", b)
	}
	calls := n.Calls() // all gets so far missed the front
	if b := n.Get("one"); b == nil || n.Calls() != calls {
		t.Errorf("get = %v, and calls went from %d to %d: a hit of the front is none", b, calls, n.Calls())
	}
	if s := n.Stats(); s.Bytes != 2*zero || s.Hits != 3 || s.Misses() != 1 || n.Hits() != s.Hits {
		t.Errorf("stats %+v, hits %d", s, n.Hits())
	}
	n.Close()
	if n.Get("one") != nil {
		t.Error("get found something after close")
	}
}

// What Set adds to the cost is about what ristretto takes, on average over a doubling of its maps.
func TestNearOverhead(t *testing.T) {
	const least, counts = 50_000, 4
	mean, said := 0.0, 0.0
	for i := range counts {
		entries := int(least * math.Pow(2, float64(i)/counts))
		keys := make([]string, entries)
		for i := range keys {
			keys[i] = numbered(i)
		}
		before := liveHeap()
		n, err := newPointerNear(64 << 20)
		if err != nil {
			t.Fatal(err)
		}
		empty := liveHeap()
		var each int64 // what set counts for an entry
		for i, key := range keys {
			n.set(key, &testBox{}, 0)
			if n.of.Wait(); i == 0 {
				each = n.stats().Bytes
			}
		}
		got := float64(liveHeap()-empty)/float64(entries) - float64(unsafe.Sizeof(testBox{}))
		t.Logf("of %d each entry takes %.0f bytes beside its box; the tier itself %d KiB", entries, got, (empty-before)>>10)
		if s, all := n.stats(), int64(entries)*each; s.Bytes != all {
			t.Errorf("stats %+v: the boxes are not all there", s)
		}
		if own := float64(empty-before) / (64 << 20); own > 0.18 {
			t.Errorf("the empty tier takes %.1f %% of its bytes", 100*own)
		}
		mean, said = mean+got/counts, float64(each-n.box)
		n.close()
		runtime.KeepAlive(keys)
	}
	if mean < said*0.85 || mean > said*1.15 {
		t.Errorf("an entry takes %.0f bytes beside its box, set adds %.0f", mean, said)
	}
}

// pointerNear is a near tier of pointers, for tests that check which box they get.
type pointerNear struct {
	of  *near.Tier[*testBox]
	box int64 // bytes of an empty box
}

func newPointerNear(maxBytes int64) (*pointerNear, error) {
	of, err := near.New[*testBox](maxBytes)
	if err != nil {
		return nil, err
	}
	var box testBox
	return &pointerNear{of: of, box: int64(unsafe.Sizeof(box))}, nil
}

func (n *pointerNear) get(key string) *testBox {
	if n == nil {
		return nil
	}
	if box := n.of.Get(key); box != nil {
		return *box
	}
	return nil
}

func (n *pointerNear) set(key string, box *testBox, cost int64) {
	if n != nil && box != nil {
		n.of.Set(key, box, max(cost, 0)+n.box)
	}
}

func (n *pointerNear) del(key string) {
	if n != nil {
		n.of.Del(key)
	}
}

func (n *pointerNear) clear() {
	if n != nil {
		n.of.Clear()
	}
}

func (n *pointerNear) close() {
	if n != nil {
		n.of.Close()
	}
}

func (n *pointerNear) stats() near.Stats {
	if n == nil {
		return near.Stats{}
	}
	return n.of.Stats()
}

func numbered(i int) string { return fmt.Sprintf("key:%08d", i) }

func liveHeap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
