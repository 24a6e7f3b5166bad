package store_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/store"
)

// model is S3-FIFO as its paper has it, with lists: slow and plain. It differs from the paper in two ways that package store
// promises: bytes are counted instead of entries, and one eviction looks at modelSteps entries at most.
type model struct {
	max         int64
	small, main []*modelItem
	ghosts      []string // all keys that were evicted from small, newest last
	evictions   int
	limited     int // evictions that ended for modelSteps
}

type modelItem struct {
	key  string
	e    *store.Entry
	heat uint8
	main bool
}

const modelSteps = 64

func sum(items []*modelItem) (bytes int64) {
	for _, it := range items {
		bytes += store.Weight(it.key, it.e)
	}
	return bytes
}

func pop(items *[]*modelItem) *modelItem {
	it := (*items)[0]
	*items = (*items)[1:]
	return it
}

func (m *model) push(it *modelItem) {
	if it.main {
		m.main = append(m.main, it)
	} else {
		m.small = append(m.small, it)
	}
}

// remove takes key out of its queue and returns its item, or nil.
func (m *model) remove(key string) *modelItem {
	for _, items := range []*[]*modelItem{&m.small, &m.main} {
		if i := slices.IndexFunc(*items, func(it *modelItem) bool { return it.key == key }); i >= 0 {
			it := (*items)[i]
			*items = slices.Delete(*items, i, i+1)
			return it
		}
	}
	return nil
}

func (m *model) get(key string) *store.Entry {
	for _, it := range slices.Concat(m.small, m.main) {
		if it.key == key {
			it.heat = min(it.heat+1, codec.MaxHeat)
			return it.e
		}
	}
	return nil
}

func (m *model) evict() *modelItem {
	for range modelSteps {
		if sum(m.small) > m.max/10 || len(m.main) == 0 {
			it := pop(&m.small)
			if it.heat == 0 {
				m.ghosts = append(m.ghosts, it.key)
				return it
			}
			it.heat, it.main = 0, true
			m.push(it)
			continue
		}
		it := pop(&m.main)
		if it.heat == 0 {
			return it
		}
		it.heat--
		m.push(it)
	}
	m.limited++
	return pop(&m.main)
}

// set returns what was evicted. If key is new, promoted is asked whether it begins in the main queue; known says that
// it was evicted recently.
func (m *model) set(key string, e *store.Entry, promoted func(known bool) bool) (evicted []*modelItem) {
	it := m.remove(key)
	w := store.Weight(key, e)
	if w > m.max {
		return nil
	}
	for sum(m.small)+sum(m.main)+w > m.max {
		evicted = append(evicted, m.evict())
		m.evictions++
	}
	if it == nil {
		recent := m.ghosts[max(0, len(m.ghosts)-len(m.small)-len(m.main)):]
		it = &modelItem{key: key, main: promoted(slices.Contains(recent, key))}
	}
	it.e = e
	m.push(it)
	return evicted
}

// compare reports how s differs from m.
func (m *model) compare(s store.Owned) error {
	items := make(map[string]*modelItem)
	replicas, spare := 0, int64(0)
	for _, it := range slices.Concat(m.small, m.main) {
		items[it.key] = it
		if it.e.Replica {
			replicas++
			spare += store.Weight(it.key, it.e)
		}
	}
	var err error
	seen := 0
	s.Ranked(func(key string, e *store.Entry, heat uint8) {
		seen++
		if it := items[key]; it == nil || it.e != e || it.heat != heat {
			err = fmt.Errorf("%q has %p with heat %d, want %+v", key, e, heat, it)
		}
	})
	if seen != len(items) || s.Len() != len(items) {
		err = errors.Join(err, fmt.Errorf("%d entries ranked, len %d, want %d", seen, s.Len(), len(items)))
	}
	if want := sum(m.small) + sum(m.main); s.Bytes() != want || want > m.max {
		err = errors.Join(err, fmt.Errorf("%d bytes, want %d of at most %d", s.Bytes(), want, m.max))
	}
	if n, bytes := s.Replicas(); n != replicas || bytes != spare {
		err = errors.Join(err, fmt.Errorf("%d replicas of %d bytes, want %d of %d", n, bytes, replicas, spare))
	}
	return err
}

// modelRound is one store of TestOwnedModel and what is done to it.
type modelRound struct {
	entries int  // it has room for about this many
	keys    int  // as many different ones are used
	gets    int  // percent
	equal   bool // all entries weigh fixedWeight
	hot     bool // all keys are read often
	mask    uint64
}

// randomEntry returns an entry of some kind that weighs at most as many bytes as the store has, or rarely more.
func (x modelRound) randomEntry(r *rand.Rand, key string) *store.Entry {
	if x.equal {
		e := heavy(len(key), fixedWeight)
		e.Replica = r.IntN(5) == 0
		return e
	}
	e := &store.Entry{Replica: r.IntN(3) == 0, Stamp: r.Uint64()}
	switch r.IntN(8) {
	case 0:
		e.Flags = store.NotFound
	case 1:
		e.Flags = store.Failed
		e.Change(func(rare *store.Rare) { rare.Err = errors.New("failed") })
	case 2:
		e.Value = make([]byte, r.IntN(200))
		e.Tags = fence.TagsAt(make([]uint32, 1+r.IntN(20)), 1)
	case 3:
		e.Value = make([]byte, r.IntN(200))
		e.Change(func(rare *store.Rare) { rare.Full = &store.Expiry{Hard: 1} })
	case 4:
		e.Value = make([]byte, r.IntN(1+x.entries*fixedWeight*11/10))
	default:
		e.Value = make([]byte, r.IntN(2*fixedWeight))
	}
	return e
}

// The store and a plain S3-FIFO that get the same calls have the same entries with the same heat after each of them, and
// evict the same.
func TestOwnedModel(t *testing.T) {
	r := ownedRand(t)
	known, promoted, limited := 0, 0, 0
	for _, x := range []modelRound{
		{entries: 1, keys: 3, gets: 30},
		{entries: 10, keys: 30, gets: 40},
		{entries: 10, keys: 20, gets: 60, equal: true},
		{entries: 30, keys: 80, gets: 50},
		{entries: 40, keys: 100, gets: 50, equal: true},
		{entries: 100, keys: 150, gets: 30, equal: true, hot: true}, // some evictions take all their steps
		{entries: 100, keys: 400, gets: 30},
		{entries: 30, keys: 60, gets: 50, mask: 7}, // keys have eight hashes
	} {
		m := &model{max: int64(x.entries) * fixedWeight}
		var evicted map[string]*store.Entry
		s := store.New(m.max, func(key string, e *store.Entry) { evicted[key] = e })
		if x.mask != 0 {
			store.SetHashMask(s, x.mask)
		}
		for step := range 3_000 {
			for i := 0; x.hot && step%100 == 0 && i < codec.MaxHeat*x.keys; i++ {
				s.Get(fixedKey(i % x.keys))
				m.get(fixedKey(i % x.keys))
			}
			key := fixedKey(r.IntN(x.keys))
			var call string
			switch p := r.IntN(100); {
			case p < x.gets:
				call = "get"
				if e, ok := s.Get(key); e != m.get(key) || ok != (e != nil) {
					t.Fatalf("%+v, step %d: get(%q) = %p, %v", x, step, key, e, ok)
				}
			case p < x.gets+3:
				call = "delete"
				s.Delete(key)
				m.remove(key)
			default:
				call = "set"
				e := x.randomEntry(r, key)
				evicted = make(map[string]*store.Entry)
				s.Set(key, e)
				for _, it := range m.set(key, e, func(recent bool) bool {
					in := store.InMain(s, key)
					if in && !recent && x.mask == 0 {
						t.Errorf("%+v, step %d: %q begins in the main queue", x, step, key)
					}
					if recent && x.mask == 0 {
						known++
						if in {
							promoted++
						}
					}
					return in // a key may be forgotten early: hashes share slots
				}) {
					if evicted[it.key] != it.e {
						t.Fatalf("%+v, step %d: %q was not evicted, but %v", x, step, it.key, evicted)
					}
					delete(evicted, it.key)
				}
				if len(evicted) > 0 {
					t.Fatalf("%+v, step %d: %v evicted as well", x, step, evicted)
				}
			}
			if err := m.compare(s); err != nil {
				t.Fatalf("%+v, step %d, %s of %q: %v", x, step, call, key, err)
			}
		}
		if limited += m.limited; m.evictions == 0 {
			t.Errorf("%+v: nothing was evicted", x)
		}
		s.Close()
		if err := (&model{}).compare(s); err != nil {
			t.Errorf("closed: %v", err)
		}
	}
	t.Logf("%d of %d keys that came back began in the main queue; %d evictions took all their steps", promoted, known, limited)
	if promoted < known*6/10 || known == 0 || limited == 0 {
		t.Error("too many keys were forgotten early, or the test tests too little")
	}
}
