package tier

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

func ownedRand(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// heavy returns an entry that, under a key of keyLen bytes, weighs w.
func heavy(keyLen int, w int64) *entry {
	return &entry{value: make([]byte, w-ownedOverhead-int64(keyLen))}
}

func fixedKey(i int) string { return fmt.Sprintf("key:%08d", i) }

const fixedWeight = 1000

// newFixed returns a store for n entries of fixedWeight, set under fixedKeys.
func newFixed(n int, onEvict func(string, *entry)) *owned {
	return newOwned(int64(n)*fixedWeight, onEvict)
}

func fixed() *entry { return heavy(len(fixedKey(0)), fixedWeight) }

func TestOwnedSetIsVisibleAndStays(t *testing.T) {
	const n = 1000
	s := newFixed(n, nil)
	defer s.close()
	r := ownedRand(t)
	next := 0
	for range 8 * n {
		key := fixedKey(next)
		next++
		e := fixed()
		s.set(key, e)
		if got, ok := s.get(key); !ok || got != e {
			t.Fatalf("set %d: get right after it found %p, %v", next, got, ok)
		}
		// Old ones are asked for, so that new ones have hard competition.
		for range 3 {
			s.get(fixedKey(r.IntN(next)))
		}
	}
	// With the main queue full of keys in use, nothing is left to a new key but its tenth.
	s = newFixed(n, nil)
	defer s.close()
	const hot = n
	for i := range hot {
		s.set(fixedKey(-i), fixed())
		s.get(fixedKey(-i))
	}
	for i := range 8 * n {
		s.set(fixedKey(i+1), fixed())
		for j := max(0, i-n/youngShare+1); j <= i; j++ {
			if s.peek(fixedKey(j+1)) == nil {
				t.Fatalf("after %d sets, key %d is gone: %d sets later", i+1, j, i-j)
			}
		}
		for range 3 {
			s.get(fixedKey(-r.IntN(hot)))
		}
	}
}

// peek is a get that does not count as one.
func (s *owned) peek(key string) *ownedNode {
	hash := s.hash(key)
	sh := s.shard(hash)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return sh.find(hash, key)
}

// The store against a map that is told of evictions.
func TestOwnedModel(t *testing.T) {
	r := ownedRand(t)
	for round := range 20 {
		model := map[string]*entry{}
		limit := int64(5_000 + r.IntN(100_000))
		evicted := 0
		s := newOwned(limit, func(key string, e *entry) {
			if model[key] != e {
				t.Fatalf("%q evicted, but not what it had", key)
			}
			delete(model, key)
			evicted++
		})
		if round%2 == 1 {
			s.mask = 7 // so that 400 keys have eight hashes
		}
		for range 5_000 {
			key := fixedKey(r.IntN(400))
			switch p := r.IntN(100); {
			case p < 40:
				e := heavy(len(key), ownedOverhead+int64(len(key)+r.IntN(1<<r.IntN(12))))
				s.set(key, e)
				model[key] = e
				if w := s.bytes(); w > limit && s.len() > 1 {
					t.Fatalf("%d bytes, the limit is %d", w, limit)
				}
			case p < 45:
				s.delete(key)
				delete(model, key)
			default:
				e, ok := s.get(key)
				if e != model[key] || ok != (e != nil) {
					t.Fatalf("get(%q) = %p, %v; want %p", key, e, ok, model[key])
				}
			}
		}
		if evicted == 0 {
			t.Error("nothing was evicted: the test tests too little")
		}
		checkOwned(t, s, model)
		for key := range model {
			s.delete(key)
		}
		checkOwned(t, s, map[string]*entry{})
		s.close()
	}
}

// checkOwned compares s, at rest, with what it should hold and with itself.
func checkOwned(t *testing.T, s *owned, want map[string]*entry) {
	t.Helper()
	var w int64
	seen := 0
	s.each(func(key string, e *entry) bool {
		if want[key] != e {
			t.Errorf("each: %q has %p, want %p", key, e, want[key])
		}
		w += weight(key, e)
		seen++
		return true
	})
	queued := 0
	for _, q := range []*nodeQueue{&s.young, &s.main} {
		for n := q.root.next; n != &q.root; n = n.next {
			queued++
			if s.home(n) != q {
				t.Errorf("%q is in a queue that is not its home", n.key)
			}
			if s.peek(n.key) != n {
				t.Errorf("%q is in a queue, but cannot be found", n.key)
			}
		}
	}
	if seen != len(want) || s.len() != len(want) || queued != len(want) || s.bytes() != w {
		t.Errorf("each saw %d, len %d, queued %d, want %d; bytes %d, want %d", seen, s.len(), queued, len(want), s.bytes(), w)
	}
}

// An entry that alone weighs more than the store may is not kept, nor what its key had before; the others stay.
func TestOwnedTooHeavy(t *testing.T) {
	s := newFixed(10, nil)
	defer s.close()
	for i := range 10 {
		s.set(fixedKey(i), fixed())
	}
	big := heavy(3, 100*fixedWeight)
	s.set("big", big)
	if _, ok := s.get("big"); ok || s.len() != 10 || s.bytes() != 10*fixedWeight {
		t.Fatalf("an entry above the limit: there %v, len %d, %d bytes", ok, s.len(), s.bytes())
	}
	s.set(fixedKey(0), heavy(len(fixedKey(0)), 100*fixedWeight))
	if _, ok := s.get(fixedKey(0)); ok || s.len() != 9 || s.bytes() != 9*fixedWeight {
		t.Errorf("in the place of another: there %v, len %d, %d bytes", ok, s.len(), s.bytes())
	}
}

func TestOwnedReplaceGrows(t *testing.T) {
	s := newFixed(10, nil)
	defer s.close()
	for i := range 10 {
		s.set(fixedKey(i), fixed())
	}
	// The one that would be evicted next grows: others must go, not it.
	e := heavy(len(fixedKey(0)), 6*fixedWeight)
	s.set(fixedKey(0), e)
	if got, ok := s.get(fixedKey(0)); !ok || got != e {
		t.Fatalf("get = %p, %v after it grew", got, ok)
	}
	if s.len() != 5 || s.bytes() != 10*fixedWeight {
		t.Errorf("len %d, %d bytes; want 5 and %d", s.len(), s.bytes(), 10*fixedWeight)
	}
}

func TestOwnedScanAndReturn(t *testing.T) {
	const n = 1000
	s := newFixed(n, nil)
	defer s.close()
	for i := range n / 2 {
		s.set(fixedKey(i), fixed())
	}
	for range 3 {
		for i := range n / 2 {
			s.get(fixedKey(i))
		}
	}
	for i := n; i < 4*n; i++ { // who is asked for once each
		s.set(fixedKey(i), fixed())
	}
	kept := 0
	for i := range n / 2 {
		if _, ok := s.get(fixedKey(i)); ok {
			kept++
		}
	}
	if kept < n/2*9/10 {
		t.Errorf("a scan left %d of %d hot keys", kept, n/2)
	}
	// Who was evicted lately without a hit and comes back is given more time.
	back := fixedKey(4*n - n/2 - n/10)
	if _, ok := s.get(back); ok {
		t.Fatal("the key that should come back is still there")
	}
	s.set(back, fixed())
	for i := 4 * n; i < 5*n; i++ {
		s.set(fixedKey(i), fixed())
	}
	if _, ok := s.get(back); !ok {
		t.Error("a key that came back was evicted like a new one")
	}
	if _, ok := s.get(fixedKey(4 * n)); ok {
		t.Error("a new key without a hit outlived n newer ones")
	}
}

// In the main queue too, who is asked for outlives who is not.
func TestOwnedMainQueue(t *testing.T) {
	const n = 1000
	s := newFixed(n, nil)
	defer s.close()
	promote := func(from, to int) {
		for i := from; i < to; i++ {
			s.set(fixedKey(i), fixed())
			s.get(fixedKey(i))
		}
	}
	promote(0, n)
	promote(n, n+n/10) // the older keys have moved to the main queue by now
	for i := 200; i < 600; i++ {
		if i%2 == 0 {
			s.get(fixedKey(i))
		}
	}
	promote(2*n, 2*n+400)
	even, odd := 0, 0
	for i := 200; i < 600; i++ {
		if s.peek(fixedKey(i)) == nil {
			continue
		}
		if i%2 == 0 {
			even++
		} else {
			odd++
		}
	}
	if even < 190 || odd > 10 {
		t.Errorf("%d of 200 keys with a hit are left, and %d of 200 without", even, odd)
	}
}

func TestOwnedEvictionIsBounded(t *testing.T) {
	const n = 10_000
	gone := 0
	s := newFixed(n, func(string, *entry) { gone++ })
	defer s.close()
	for i := range n {
		s.set(fixedKey(i), fixed())
	}
	for range ownedCredit {
		for i := range n {
			s.get(fixedKey(i))
		}
	}
	s.set(fixedKey(n), fixed())
	touched := 0
	s.each(func(key string, _ *entry) bool {
		if s.peek(key).credit.Load() < ownedCredit {
			touched++
		}
		return true
	})
	if gone != 1 || touched > evictSteps+1 {
		t.Errorf("one set evicted %d and looked at %d entries, want 1 and at most %d", gone, touched, evictSteps)
	}
}

func TestGhosts(t *testing.T) {
	r := ownedRand(t)
	const n = 10_000
	var g ghosts
	if g.recall(1, n) {
		t.Error("no ghosts, but one is recalled")
	}
	hashes := make([]uint64, 3*n)
	for i := range hashes {
		hashes[i] = r.Uint64()
		g.remember(hashes[i], n)
	}
	last, before := 0, 0
	for i, h := range hashes {
		if !g.recall(h, n) {
			continue
		}
		if i >= 2*n {
			last++
		} else {
			before++
		}
	}
	if before > 1 || last < n*9/10 {
		t.Errorf("of the last %d, %d are remembered; of those before %d", n, last, before)
	}
}

// One goroutine sets, deletes and looks; others read the same key and churn the store.
func TestOwnedLinearizable(t *testing.T) {
	r := ownedRand(t)
	s := newFixed(5_000, nil)
	defer s.close()
	var stop atomic.Bool
	var evicted atomic.Int64
	var wg, owners sync.WaitGroup
	for range 2 {
		seed := r.Uint64()
		wg.Go(func() { // churn: evictions in all shards
			r := rand.New(rand.NewPCG(seed, 1))
			for !stop.Load() {
				s.set(fixedKey(1000+r.IntN(20_000)), fixed())
				s.get(fixedKey(1000 + r.IntN(20_000)))
				s.delete(fixedKey(1000 + r.IntN(20_000)))
			}
		})
	}
	for o := range 4 {
		key := strconv.Itoa(o)
		wg.Go(func() { // a reader never sees an older version after a newer one
			last := uint64(0)
			for !stop.Load() {
				e, ok := s.get(key)
				if !ok {
					continue
				}
				if e.stamp < last {
					t.Errorf("version %d after %d", e.stamp, last)
					return
				}
				last = e.stamp
			}
		})
		owners.Go(func() {
			for v := uint64(1); v < 3_000; v += 2 {
				a, b := &entry{stamp: v}, &entry{stamp: v + 1}
				s.set(key, a)
				if e, ok := s.get(key); !ok {
					evicted.Add(1) // the scheduler was away for thousands of sets
				} else if e != a {
					t.Errorf("set, get: %v", e)
				}
				s.set(key, b)
				if e, ok := s.get(key); !ok {
					evicted.Add(1)
				} else if e != b {
					t.Errorf("set, set, get: %v", e)
				}
				s.delete(key)
				if e, ok := s.get(key); ok {
					t.Errorf("set, delete, get: %v", e)
				}
			}
		})
	}
	owners.Wait()
	stop.Store(true)
	wg.Wait()
	if n := evicted.Load(); n > 4*3_000/20 {
		t.Errorf("%d of %d sets were not there right after", n, 4*3_000)
	}
	want := map[string]*entry{}
	s.each(func(key string, e *entry) bool { want[key] = e; return true })
	checkOwned(t, s, want)
}

func TestOwnedEach(t *testing.T) {
	s := newFixed(100, nil)
	defer s.close()
	for i := range 100 {
		s.set(fixedKey(i), fixed())
	}
	n := 0
	s.each(func(string, *entry) bool { n++; return n < 7 })
	if n != 7 {
		t.Errorf("each went on for %d calls, want 7", n)
	}
	s.each(func(key string, e *entry) bool { // no lock is held
		s.set(key, e)
		s.delete(key)
		return true
	})
	if s.len() != 0 || s.bytes() != 0 {
		t.Errorf("len %d, %d bytes left", s.len(), s.bytes())
	}
}

func TestOwnedEvictCallbackMayUseStore(t *testing.T) {
	var s *owned
	calls := 0
	s = newFixed(10, func(key string, _ *entry) {
		calls++
		s.get(key)
		s.delete(key)
		s.len()
	})
	defer s.close()
	for i := range 100 {
		s.set(fixedKey(i), fixed())
	}
	if calls != 90 {
		t.Errorf("%d evictions told, want 90", calls)
	}
}

func TestOwnedClose(t *testing.T) {
	s := newFixed(100, nil)
	s.set("before", &entry{})
	s.close()
	if _, ok := s.get("before"); ok {
		t.Error("an entry outlived close")
	}
	s = newFixed(100, nil)
	var wg sync.WaitGroup
	start := make(chan struct{})
	for w := range 4 {
		wg.Go(func() {
			<-start
			for i := range 5_000 {
				s.set(fixedKey(i%300), fixed())
				s.get(fixedKey(i % 300))
				s.delete(fixedKey((i + w) % 300))
				if i%1000 == 0 {
					s.each(func(string, *entry) bool { return true })
				}
			}
		})
	}
	close(start)
	s.close()
	s.close()
	wg.Wait()
	s.set("a", &entry{})
	if _, ok := s.get("a"); ok || s.len() != 0 || s.bytes() != 0 {
		t.Errorf("closed, but there: %v, len %d, %d bytes", ok, s.len(), s.bytes())
	}
}

// What an entry is said to weigh is about what it takes.
func TestOwnedOverhead(t *testing.T) {
	got := ownedHeap(50_000, 256)
	said := float64(ownedOverhead)
	t.Logf("an entry takes %.0f bytes beside key and value, of which %d are its struct; weight says %.0f", got, unsafe.Sizeof(entry{}), said)
	if got < said*0.8 || got > said*1.2 {
		t.Errorf("an entry takes %.0f bytes beside key and value, weight says %.0f", got, said)
	}
}

// ownedHeap is what an entry takes beside its key and its value, in bytes, in a store that has
// been full for a while.
func ownedHeap(n, value int) float64 {
	keys := make([]string, 3*n)
	for i := range keys {
		keys[i] = fixedKey(i)
	}
	before := heapInUse()
	s := newOwned(int64(n)*(int64(value+len(keys[0]))+ownedOverhead), nil)
	for _, key := range keys {
		s.set(key, &entry{value: make([]byte, value)})
	}
	after := heapInUse()
	per := float64(after-before)/float64(s.len()) - float64(value)
	s.close()
	runtime.KeepAlive(keys)
	return per
}

func heapInUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
