package store_test

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

	"github.com/weircache/weir/tier/internal/store"
)

func ownedRand(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// heavy returns an entry that weighs w under a key of keyLen bytes.
func heavy(keyLen int, w int64) *store.Entry {
	return &store.Entry{Value: make([]byte, w-store.Overhead-int64(keyLen))}
}

func fixedKey(i int) string { return fmt.Sprintf("key:%08d", i) }

const fixedWeight = 1000

// newFixed returns a store for n entries of fixedWeight, set under fixedKeys.
func newFixed(n int, onEvict func(string, *store.Entry)) store.Owned {
	return store.New(int64(n)*fixedWeight, onEvict)
}

func fixed() *store.Entry { return heavy(len(fixedKey(0)), fixedWeight) }

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
	sets := 0 // of new keys; each entry's stamp is the number of its own
	s = newFixed(n, func(key string, e *store.Entry) {
		if e.Stamp > 0 && sets-int(e.Stamp) < n/10 {
			t.Errorf("after %d sets, %s is gone: %d sets later", sets, key, sets-int(e.Stamp))
		}
	})
	defer s.Close()
	const hot = n
	for i := range hot {
		s.Set(fixedKey(-i), fixed())
		s.Get(fixedKey(-i))
	}
	for sets = 1; sets <= 8*n; sets++ {
		e := fixed()
		e.Stamp = uint64(sets)
		s.Set(fixedKey(sets), e)
		for range 3 {
			s.Get(fixedKey(-r.IntN(hot)))
		}
	}
}

// contents returns what s has without counting hits.
func contents(s store.Owned) map[string]*store.Entry {
	all := make(map[string]*store.Entry)
	s.Each(func(key string, e *store.Entry) bool { all[key] = e; return true })
	return all
}

// checkOwned compares s, while nothing uses it, with its expected contents and checks its invariants.
func checkOwned(t *testing.T, s store.Owned, want map[string]*store.Entry) {
	t.Helper()
	var w int64
	seen := 0
	s.Each(func(key string, e *store.Entry) bool {
		if want[key] != e {
			t.Errorf("each: %q has %p, want %p", key, e, want[key])
		}
		w += store.Weight(key, e)
		seen++
		return true
	})
	if seen != len(want) || s.Len() != len(want) || s.Bytes() != w {
		t.Errorf("each saw %d, len %d, want %d; bytes %d, want %d", seen, s.Len(), len(want), s.Bytes(), w)
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
				a, b := &store.Entry{Stamp: v}, &store.Entry{Stamp: v + 1}
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
	want := map[string]*store.Entry{}
	s.Each(func(key string, e *store.Entry) bool { want[key] = e; return true })
	checkOwned(t, s, want)
}

func TestOwnedEach(t *testing.T) {
	s := newFixed(100, nil)
	defer s.Close()
	for i := range 100 {
		s.Set(fixedKey(i), fixed())
	}
	n := 0
	s.Each(func(string, *store.Entry) bool { n++; return n < 7 })
	if n != 7 {
		t.Errorf("each went on for %d calls, want 7", n)
	}
	s.Each(func(key string, e *store.Entry) bool { // no lock is held
		s.Set(key, e)
		s.Delete(key)
		return true
	})
	if s.Len() != 0 || s.Bytes() != 0 {
		t.Errorf("len %d, %d bytes left", s.Len(), s.Bytes())
	}
}

func TestOwnedEvictCallbackMayUseStore(t *testing.T) {
	var s store.Owned
	calls := 0
	s = newFixed(10, func(key string, _ *store.Entry) {
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
	s.Set("before", &store.Entry{})
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
					s.Each(func(string, *store.Entry) bool { return true })
				}
			}
		})
	}
	close(start)
	s.Close()
	s.Close()
	wg.Wait()
	s.Set("a", &store.Entry{})
	if _, ok := s.Get("a"); ok || s.Len() != 0 || s.Bytes() != 0 {
		t.Errorf("closed, but there: %v, len %d, %d bytes", ok, s.Len(), s.Bytes())
	}
}

// The weight of an entry is about what it takes on the heap.
func TestOwnedOverhead(t *testing.T) {
	got := ownedHeap(50_000, 256)
	said := float64(store.Overhead)
	t.Logf("an entry takes %.0f bytes beside key and value, of which %d are its struct; weight says %.0f", got, unsafe.Sizeof(store.Entry{}), said)
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
	s := store.New(int64(n)*(int64(value+len(keys[0]))+store.Overhead), nil)
	for _, key := range keys {
		s.Set(key, &store.Entry{Value: make([]byte, value)})
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
