package store

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

// heavy returns an entry that weighs w under a key of keyLen bytes.
func heavy(keyLen int, w int64) *Entry {
	return &Entry{Value: make([]byte, w-Overhead-int64(keyLen))}
}

func fixedKey(i int) string { return fmt.Sprintf("key:%08d", i) }

const fixedWeight = 1000

// newFixed returns a store for n entries of fixedWeight, set under fixedKeys.
func newFixed(n int, onEvict func(string, *Entry)) *s3fifo {
	return newS3FIFO(int64(n)*fixedWeight, onEvict)
}

func fixed() *Entry { return heavy(len(fixedKey(0)), fixedWeight) }

func TestOwnedSetIsVisibleAndStays(t *testing.T) {
	const n = 1000
	s := newFixed(n, nil)
	defer s.Close()
	r := ownedRand(t)
	next := 0
	for range 8 * n {
		key := fixedKey(next)
		next++
		e := fixed()
		s.Set(key, e)
		if got, ok := s.Get(key); !ok || got != e {
			t.Fatalf("set %d: get right after it found %p, %v", next, got, ok)
		}
		// The old keys are read, so that new ones have strong competition.
		for range 3 {
			s.Get(fixedKey(r.IntN(next)))
		}
	}
	// With a main queue full of keys in use, new keys get only their tenth.
	s = newFixed(n, nil)
	defer s.Close()
	const hot = n
	for i := range hot {
		s.Set(fixedKey(-i), fixed())
		s.Get(fixedKey(-i))
	}
	for i := range 8 * n {
		s.Set(fixedKey(i+1), fixed())
		for j := max(0, i-n/youngShare+1); j <= i; j++ {
			if s.peek(fixedKey(j+1)) == nil {
				t.Fatalf("after %d sets, key %d is gone: %d sets later", i+1, j, i-j)
			}
		}
		for range 3 {
			s.Get(fixedKey(-r.IntN(hot)))
		}
	}
}

// peek returns key's node without counting a hit.
func (s *s3fifo) peek(key string) *ownedNode {
	hash := s.hash(key)
	sh := s.shard(hash)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return sh.find(hash, key)
}

// The store behaves like a map that is told of evictions.
func TestOwnedModel(t *testing.T) {
	r := ownedRand(t)
	for round := range 20 {
		model := map[string]*Entry{}
		limit := int64(5_000 + r.IntN(100_000))
		evicted := 0
		s := newS3FIFO(limit, func(key string, e *Entry) {
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
				e := heavy(len(key), Overhead+int64(len(key)+r.IntN(1<<r.IntN(12))))
				s.Set(key, e)
				model[key] = e
				if w := s.Bytes(); w > limit && s.Len() > 1 {
					t.Fatalf("%d bytes, the limit is %d", w, limit)
				}
			case p < 45:
				s.Delete(key)
				delete(model, key)
			default:
				e, ok := s.Get(key)
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
			s.Delete(key)
		}
		checkOwned(t, s, map[string]*Entry{})
		s.Close()
	}
}

// checkOwned compares s, while nothing uses it, with its expected contents and checks its invariants.
func checkOwned(t *testing.T, s *s3fifo, want map[string]*Entry) {
	t.Helper()
	var w int64
	seen := 0
	s.Each(func(key string, e *Entry) bool {
		if want[key] != e {
			t.Errorf("each: %q has %p, want %p", key, e, want[key])
		}
		w += Weight(key, e)
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
	if seen != len(want) || s.Len() != len(want) || queued != len(want) || s.Bytes() != w {
		t.Errorf("each saw %d, len %d, queued %d, want %d; bytes %d, want %d", seen, s.Len(), queued, len(want), s.Bytes(), w)
	}
}

// An entry that alone weighs more than the store may is not kept, and its key's old entry is removed. The other
// entries stay.
func TestOwnedTooHeavy(t *testing.T) {
	s := newFixed(10, nil)
	defer s.Close()
	for i := range 10 {
		s.Set(fixedKey(i), fixed())
	}
	big := heavy(3, 100*fixedWeight)
	s.Set("big", big)
	if _, ok := s.Get("big"); ok || s.Len() != 10 || s.Bytes() != 10*fixedWeight {
		t.Fatalf("an entry above the limit: there %v, len %d, %d bytes", ok, s.Len(), s.Bytes())
	}
	s.Set(fixedKey(0), heavy(len(fixedKey(0)), 100*fixedWeight))
	if _, ok := s.Get(fixedKey(0)); ok || s.Len() != 9 || s.Bytes() != 9*fixedWeight {
		t.Errorf("in the place of another: there %v, len %d, %d bytes", ok, s.Len(), s.Bytes())
	}
}

func TestOwnedReplaceGrows(t *testing.T) {
	s := newFixed(10, nil)
	defer s.Close()
	for i := range 10 {
		s.Set(fixedKey(i), fixed())
	}
	// The next entry to be evicted grows: others must be evicted, not that one.
	e := heavy(len(fixedKey(0)), 6*fixedWeight)
	s.Set(fixedKey(0), e)
	if got, ok := s.Get(fixedKey(0)); !ok || got != e {
		t.Fatalf("get = %p, %v after it grew", got, ok)
	}
	if s.Len() != 5 || s.Bytes() != 10*fixedWeight {
		t.Errorf("len %d, %d bytes; want 5 and %d", s.Len(), s.Bytes(), 10*fixedWeight)
	}
}

func TestOwnedScanAndReturn(t *testing.T) {
	const n = 1000
	s := newFixed(n, nil)
	defer s.Close()
	for i := range n / 2 {
		s.Set(fixedKey(i), fixed())
	}
	for range 3 {
		for i := range n / 2 {
			s.Get(fixedKey(i))
		}
	}
	for i := n; i < 4*n; i++ { // keys that are read once each
		s.Set(fixedKey(i), fixed())
	}
	kept := 0
	for i := range n / 2 {
		if _, ok := s.Get(fixedKey(i)); ok {
			kept++
		}
	}
	if kept < n/2*9/10 {
		t.Errorf("a scan left %d of %d hot keys", kept, n/2)
	}
	// A key that was recently evicted without a hit and comes back gets more time.
	back := fixedKey(4*n - n/2 - n/10)
	if _, ok := s.Get(back); ok {
		t.Fatal("the key that should come back is still there")
	}
	s.Set(back, fixed())
	for i := 4 * n; i < 5*n; i++ {
		s.Set(fixedKey(i), fixed())
	}
	if _, ok := s.Get(back); !ok {
		t.Error("a key that came back was evicted like a new one")
	}
	if _, ok := s.Get(fixedKey(4 * n)); ok {
		t.Error("a new key without a hit outlived n newer ones")
	}
}

// In the main queue, keys that are read outlive keys that are not.
func TestOwnedMainQueue(t *testing.T) {
	const n = 1000
	s := newFixed(n, nil)
	defer s.Close()
	promote := func(from, to int) {
		for i := from; i < to; i++ {
			s.Set(fixedKey(i), fixed())
			s.Get(fixedKey(i))
		}
	}
	promote(0, n)
	promote(n, n+n/10) // by now the older keys have moved to the main queue
	for i := 200; i < 600; i++ {
		if i%2 == 0 {
			s.Get(fixedKey(i))
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
	s := newFixed(n, func(string, *Entry) { gone++ })
	defer s.Close()
	for i := range n {
		s.Set(fixedKey(i), fixed())
	}
	for range ownedCredit {
		for i := range n {
			s.Get(fixedKey(i))
		}
	}
	s.Set(fixedKey(n), fixed())
	touched := 0
	s.Each(func(key string, _ *Entry) bool {
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

// One goroutine sets, deletes and reads; others read the same key and churn the store.
func TestOwnedLinearizable(t *testing.T) {
	r := ownedRand(t)
	s := newFixed(5_000, nil)
	defer s.Close()
	var stop atomic.Bool
	var evicted atomic.Int64
	var wg, owners sync.WaitGroup
	for range 2 {
		seed := r.Uint64()
		wg.Go(func() { // churn: evictions in all shards
			r := rand.New(rand.NewPCG(seed, 1))
			for !stop.Load() {
				s.Set(fixedKey(1000+r.IntN(20_000)), fixed())
				s.Get(fixedKey(1000 + r.IntN(20_000)))
				s.Delete(fixedKey(1000 + r.IntN(20_000)))
			}
		})
	}
	for o := range 4 {
		key := strconv.Itoa(o)
		wg.Go(func() { // a reader never sees an older version after a newer one
			last := uint64(0)
			for !stop.Load() {
				e, ok := s.Get(key)
				if !ok {
					continue
				}
				if e.Stamp < last {
					t.Errorf("version %d after %d", e.Stamp, last)
					return
				}
				last = e.Stamp
			}
		})
		owners.Go(func() {
			for v := uint64(1); v < 3_000; v += 2 {
				a, b := &Entry{Stamp: v}, &Entry{Stamp: v + 1}
				s.Set(key, a)
				if e, ok := s.Get(key); !ok {
					evicted.Add(1) // the reader was not scheduled for thousands of sets
				} else if e != a {
					t.Errorf("set, get: %v", e)
				}
				s.Set(key, b)
				if e, ok := s.Get(key); !ok {
					evicted.Add(1)
				} else if e != b {
					t.Errorf("set, set, get: %v", e)
				}
				s.Delete(key)
				if e, ok := s.Get(key); ok {
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
	want := map[string]*Entry{}
	s.Each(func(key string, e *Entry) bool { want[key] = e; return true })
	checkOwned(t, s, want)
}

func TestOwnedEach(t *testing.T) {
	s := newFixed(100, nil)
	defer s.Close()
	for i := range 100 {
		s.Set(fixedKey(i), fixed())
	}
	n := 0
	s.Each(func(string, *Entry) bool { n++; return n < 7 })
	if n != 7 {
		t.Errorf("each went on for %d calls, want 7", n)
	}
	s.Each(func(key string, e *Entry) bool { // no lock is held
		s.Set(key, e)
		s.Delete(key)
		return true
	})
	if s.Len() != 0 || s.Bytes() != 0 {
		t.Errorf("len %d, %d bytes left", s.Len(), s.Bytes())
	}
}

func TestOwnedEvictCallbackMayUseStore(t *testing.T) {
	var s *s3fifo
	calls := 0
	s = newFixed(10, func(key string, _ *Entry) {
		calls++
		s.Get(key)
		s.Delete(key)
		s.Len()
	})
	defer s.Close()
	for i := range 100 {
		s.Set(fixedKey(i), fixed())
	}
	if calls != 90 {
		t.Errorf("%d evictions told, want 90", calls)
	}
}

func TestOwnedClose(t *testing.T) {
	s := newFixed(100, nil)
	s.Set("before", &Entry{})
	s.Close()
	if _, ok := s.Get("before"); ok {
		t.Error("an entry outlived close")
	}
	s = newFixed(100, nil)
	var wg sync.WaitGroup
	start := make(chan struct{})
	for w := range 4 {
		wg.Go(func() {
			<-start
			for i := range 5_000 {
				s.Set(fixedKey(i%300), fixed())
				s.Get(fixedKey(i % 300))
				s.Delete(fixedKey((i + w) % 300))
				if i%1000 == 0 {
					s.Each(func(string, *Entry) bool { return true })
				}
			}
		})
	}
	close(start)
	s.Close()
	s.Close()
	wg.Wait()
	s.Set("a", &Entry{})
	if _, ok := s.Get("a"); ok || s.Len() != 0 || s.Bytes() != 0 {
		t.Errorf("closed, but there: %v, len %d, %d bytes", ok, s.Len(), s.Bytes())
	}
}

// The weight of an entry is about what it takes on the heap.
func TestOwnedOverhead(t *testing.T) {
	got := ownedHeap(50_000, 256)
	said := float64(Overhead)
	t.Logf("an entry takes %.0f bytes beside key and value, of which %d are its struct; weight says %.0f", got, unsafe.Sizeof(Entry{}), said)
	if got < said*0.8 || got > said*1.2 {
		t.Errorf("an entry takes %.0f bytes beside key and value, weight says %.0f", got, said)
	}
}

// ownedHeap returns what an entry takes in addition to its key and its value, in bytes, in a store that has been full
// for a while.
func ownedHeap(n, value int) float64 {
	keys := make([]string, 3*n)
	for i := range keys {
		keys[i] = fixedKey(i)
	}
	before := heapInUse()
	s := newS3FIFO(int64(n)*(int64(value+len(keys[0]))+Overhead), nil)
	for _, key := range keys {
		s.Set(key, &Entry{Value: make([]byte, value)})
	}
	after := heapInUse()
	per := float64(after-before)/float64(s.Len()) - float64(value)
	s.Close()
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
