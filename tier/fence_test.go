package tier

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
)

// history runs readers and writers on a simulated cluster and reports each read that breaks
// the promise of Invalidate.
type history struct {
	nodes, keys, ops int
	near             bool
	storm            bool // fence tables overflow meanwhile
	late             bool // members open their caches late
	strip            bool // requests do not carry fences
	slow             bool // loads take long
	wrap             func(codec.Handler) codec.Handler
}

type historyResult struct {
	broken []string
	loads  int64
	most   int
	done   int // invalidations that returned nil
}

func (h history) run(t *testing.T, seed uint64) (out historyResult) {
	bubble(t, func(t *testing.T) {
		var rmu sync.Mutex // guards rng
		rng := rand.New(rand.NewPCG(seed, 1))
		intn := func(n int) int { rmu.Lock(); defer rmu.Unlock(); return rng.IntN(n) }
		s, o := newSim(t, h.nodes), newOrigin()
		o.delay = func() time.Duration { return time.Duration(intn(20)) * time.Millisecond }
		if h.slow {
			o.delay = func() time.Duration { return time.Duration(intn(100)) * time.Millisecond }
		}
		s.rule = func(from, to string, kind codec.Kind, answer bool) hop {
			switch intn(4) {
			case 0:
				return hop{delay: time.Duration(intn(60)) * time.Millisecond}
			case 1:
				return hop{delay: time.Duration(intn(5)) * time.Millisecond, lost: intn(20) == 0}
			}
			return hop{delay: time.Duration(intn(1000)) * time.Microsecond}
		}
		if h.strip {
			s.tweak = func(_, _ string, r *codec.Request) { r.Fence = codec.Mark{} }
		}
		for _, n := range s.nodes {
			n.wrap = h.wrap
		}
		cfg := Config[simValue]{InvalidateTimeout: 5 * time.Second, Seed: seed + 1}
		if !h.near {
			cfg.NearBytes = -1
		}
		var cmu sync.Mutex // guards caches
		caches := make(map[string]*Cache[simValue])
		cache := func(i int) *Cache[simValue] { cmu.Lock(); defer cmu.Unlock(); return caches[s.names[i]] }
		open := func(name string) {
			c := s.open(name, o, cfg)
			cmu.Lock()
			defer cmu.Unlock()
			caches[name] = c
		}
		var wg sync.WaitGroup
		for i, name := range s.names {
			if h.late && i > 0 && intn(2) == 0 {
				wg.Go(func() {
					_ = pause(context.Background(), time.Duration(intn(150))*time.Millisecond)
					open(name)
				})
				continue
			}
			open(name)
		}
		var mu sync.Mutex // guards floor and out
		floor := make(map[string]int64)
		read := func(node int, key string) {
			c := cache(node)
			if c == nil {
				return
			}
			mu.Lock()
			least := floor[key]
			mu.Unlock()
			v, err := c.Get(context.Background(), key)
			if err == nil && v.Began < least {
				mu.Lock()
				defer mu.Unlock()
				out.broken = append(out.broken, fmt.Sprintf("%s read %s of load %d at %s after the invalidation at %d", s.names[node], key, v.Began, v.Node, least))
			}
		}
		for range 2 * h.nodes {
			wg.Go(func() {
				for range h.ops {
					_ = pause(context.Background(), time.Duration(intn(12))*time.Millisecond)
					read(intn(h.nodes), fmt.Sprintf("k%d", intn(h.keys)))
				}
			})
		}
		for w := range 3 {
			wg.Go(func() {
				for range h.ops / 4 {
					_ = pause(context.Background(), time.Duration(intn(60))*time.Millisecond)
					key, c := fmt.Sprintf("k%d", intn(h.keys)), cache(intn(h.nodes))
					if c == nil {
						continue
					}
					o.write(key)
					at := o.seq.Add(1)
					if err := c.Invalidate(context.Background(), key); err != nil {
						continue
					}
					mu.Lock()
					out.done++
					floor[key] = max(floor[key], at)
					mu.Unlock()
					for i := range h.nodes {
						read(i, key)
					}
					if h.storm && w == 0 {
						c.fences.note("other"+key, ring.Hash(key), codec.Mark{Incarnation: 9, Seq: uint64(at)}, 0, nothing)
						flood(c.fences, key, fencesPerShard)
					}
				}
			})
		}
		wg.Wait()
		s.stop(caches)
		out.loads, out.most = o.loads.Load(), o.most
	})
	return out
}

// flood fences n other keys of key's shard on one node.
func flood(f *fences, key string, n int) {
	hash := ring.Hash(key)
	for i := range n {
		f.apply(fmt.Sprintf("flood%d", i), hash, codec.Mark{Incarnation: 8, Seq: f.stamp(hash) + 1}, 0, nothing)
	}
}

func TestHistories(t *testing.T)     { manyHistories(t, 40) }
func TestHistoriesLong(t *testing.T) { manyHistories(t, 240) }

// manyHistories plays n histories with seeds of their own.
func manyHistories(t *testing.T, n int) {
	t.Helper()
	base := rand.Uint64N(1 << 32)
	t.Logf("seeds from %d", base)
	done, loads := 0, int64(0)
	for i := range uint64(n) {
		seed := base + i
		h := history{nodes: 3 + int(i%3), keys: 1 + int(i%3), ops: 24, near: i%4 != 3, storm: i%5 == 1, late: i%5 == 2, strip: false}
		r := h.run(t, seed)
		if len(r.broken) > 0 {
			t.Fatalf("seed %d %+v: %d reads broke the promise, first: %s", seed, h, len(r.broken), r.broken[0])
		}
		if r.most > maxRunning {
			t.Fatalf("seed %d: %d loads of one key at once on one node", seed, r.most)
		}
		done, loads = done+r.done, loads+r.loads
	}
	if done < 4*n {
		t.Errorf("only %d invalidations were confirmed", done)
	}
	t.Logf("%d invalidations confirmed, %d loads", done, loads)
}

// mutant applies invalidations wrongly.
type mutant struct {
	handler[simValue]
	apply func(c *Cache[simValue], key string, hash uint64, mark codec.Mark)
}

func (m mutant) TryServe(req *codec.Request, resp *codec.Response) bool {
	if req.Kind != codec.KindInvalidate {
		return m.handler.TryServe(req, resp)
	}
	resp.Status, resp.Incarnation, resp.Seq = codec.StatusDone, m.c.log.self, 1<<60
	m.c.log.mu.Lock()
	defer m.c.log.mu.Unlock()
	for _, v := range req.News.Invalidations {
		for _, k := range v.Names {
			key := string(k)
			m.apply(m.c, key, ring.Hash(key), v.Mark)
		}
		m.c.log.track(v.Mark.Incarnation).reach(v.Mark.Seq)
	}
	return true
}

// The checker must catch each part of the mechanism when it is missing.
func TestHistoriesCatch(t *testing.T) {
	wrap := func(apply func(c *Cache[simValue], key string, hash uint64, mark codec.Mark)) func(codec.Handler) codec.Handler {
		return func(h codec.Handler) codec.Handler { return mutant{h.(handler[simValue]), apply} }
	}
	for name, h := range map[string]history{
		"no carried fence": {near: true, strip: true},
		"no detach of flights": {slow: true, wrap: wrap(func(c *Cache[simValue], key string, hash uint64, mark codec.Mark) {
			at, _ := c.fences.apply(key, hash, mark, 0, func(bool) { c.owned.delete(key) })
			c.asks.detach(key, hash, at.copies)
		})},
		"no check at commit": {wrap: wrap(func(c *Cache[simValue], key string, hash uint64, mark codec.Mark) {
			c.fence(key, hash, mark, 0)
			c.fences.update(hash, func() { delete(c.fences.shard(fenceSlot(hash)).m, key) })
		})},
		"no check of near copies": {near: true, wrap: wrap(func(c *Cache[simValue], key string, hash uint64, mark codec.Mark) {
			c.fence(key, hash, mark, 0)
			c.fences.slots[fenceSlot(hash)].Store(0)
		})},
	} {
		t.Run(name, func(t *testing.T) {
			h.nodes, h.keys, h.ops = 4, 2, 40
			for seed := range uint64(300) {
				if r := h.run(t, seed); len(r.broken) > 0 {
					t.Logf("caught with seed %d: %s", seed, r.broken[0])
					return
				}
			}
			t.Error("the checker did not notice")
		})
	}
}

const otherShard = 5 // keys given this hash share a shard and a slot

func mark(n uint64) codec.Mark { return codec.Mark{Incarnation: 3, Seq: n} }

func nothing(bool) {}

func stored() {}

// invalidation is the news of one.
func invalidation(m codec.Mark, keys ...[]byte) *codec.News {
	return &codec.News{Invalidations: []codec.Invalidation{{Mark: m, Scope: codec.ScopeKeys, Names: keys}}}
}

// apply applies an invalidation of key as if another member had sent it.
func apply(c *Cache[simValue], key string, m codec.Mark) { c.receive(invalidation(m, []byte(key))) }

// at is a member's cache that has applied everything up to the clock's value.
func at(f *fences, clock uint64) *known {
	k := &known{incarnation: 7}
	k.clocks[fenceSlot(otherShard)/slotsPerShard] = clock
	return k
}

func newTestFences() (*fences, *int64) {
	now := new(int64)
	return newFences(func() int64 { return *now }, 0), now
}

// A table that is full forgets early and stays bounded; what it forgot still counts as fenced.
func TestFencesFull(t *testing.T) {
	f, now := newTestFences()
	*now = 1
	f.apply("first", otherShard, mark(1), 0, nothing)
	before := f.stamp(otherShard) - 1
	for i := range uint64(20 * fencesPerShard) {
		f.apply(fmt.Sprint("k", i), otherShard, mark(i+2), 0, nothing)
		if n := f.size(); n > fencesPerShard {
			t.Fatalf("%d fences after %d", n, i)
		}
	}
	if f.commit("first", otherShard, claim{stamp: before, began: *now}, stored) {
		t.Error("a load from before a forgotten fence was stored")
	}
	if _, valid := f.near("first", fenceSlot(otherShard), before); valid {
		t.Error("a near copy from before a forgotten fence was valid")
	}
	clock := f.stamp(otherShard)
	if d := f.debt("first", otherShard, clock, at(f, before)); d.duty != dutyExchange {
		t.Error("who may lack a forgotten fence is asked without an exchange")
	}
	f.apply("first", otherShard, mark(1<<40), 0, nothing)
	if d := f.debt("first", otherShard, clock+1, at(f, before)); d.duty != dutyExchange {
		t.Errorf("debt = %v: the new fence hides one that was forgotten", d)
	}
	if d := f.debt("first", otherShard, clock+1, at(f, clock)); d != (debt{mark: mark(1 << 40)}) {
		t.Errorf("debt = %v, want the new fence only", d)
	}
	if !f.commit("first", otherShard, claim{stamp: f.stamp(otherShard), began: *now}, stored) {
		t.Error("what begins now was not stored")
	}
}

func TestFencesForget(t *testing.T) {
	f, now := newTestFences()
	f.apply("k", otherShard, mark(1), 0, nothing)
	*now = f.retention
	f.sweep()
	if f.size() != 1 {
		t.Error("forgotten too early")
	}
	*now++
	f.sweep()
	if f.size() != 0 {
		t.Error("not forgotten")
	}
	if f.commit("k", otherShard, claim{began: *now}, stored) {
		t.Error("a load from before the fence was stored")
	}
	if f.commit("k", otherShard, claim{stamp: 1}, stored) {
		t.Error("a load older than the retention was stored")
	}
	if !f.commit("k", otherShard, claim{stamp: 1, began: *now}, stored) {
		t.Error("a load that began after the fence was not stored")
	}
}

// Marks that were applied do nothing when they come again, in whatever order.
func TestFencesKnowTheirMarks(t *testing.T) {
	f, _ := newTestFences()
	for _, c := range []struct {
		n    uint64
		want bool
	}{{1, true}, {1, false}, {2, true}, {1, false}, {2, false}, {3, true}, {1, false}, {4, true}, {2, false}} {
		if _, applied := f.apply("k", otherShard, mark(c.n), 0, nothing); applied != c.want {
			t.Errorf("mark %d: applied = %v", c.n, applied)
		}
	}
}

// of is an invalidation that another incarnation has started.
func of(incarnation uint64) codec.Mark { return codec.Mark{Incarnation: incarnation, Seq: 1} }

// One mark that a member lacks goes along with the request; more than one need an exchange. Of one incarnation the
// last mark stands for those before it.
func TestFencesDebt(t *testing.T) {
	f, _ := newTestFences()
	want := func(clock uint64, m codec.Mark, d duty) {
		t.Helper()
		if got := f.debt("k", otherShard, f.stamp(otherShard), at(f, clock)); got != (debt{m, d}) {
			t.Fatalf("debt = %v, want %v, %v", got, m, d)
		}
	}
	none := codec.Mark{}
	want(0, none, dutyNone)
	f.apply("k", otherShard, of(1), 0, nothing)
	want(0, of(1), dutyNone)
	want(1, none, dutyNone)
	f.apply("k", otherShard, of(2), 0, nothing)
	want(0, none, dutyExchange)
	want(1, of(2), dutyNone)
	f.told("k", otherShard, of(1), 7)
	want(0, of(2), dutyNone)
	f.told("k", otherShard, of(2), 7)
	want(0, none, dutyNone)
	f.apply("k", otherShard, of(3), 0, nothing)
	f.apply("k", otherShard, of(4), 0, nothing) // there is no room for 1
	want(0, none, dutyExchange)
	want(3, of(4), dutyNone)
	f.apply("k", otherShard, codec.Mark{Incarnation: 4, Seq: 9}, 0, nothing)
	want(3, codec.Mark{Incarnation: 4, Seq: 9}, dutyNone)
	if d := f.debt("k", otherShard, 3, at(f, 3)); d != (debt{}) {
		t.Error("an exchange after the read's beginning is not enough")
	}
	f.apply("other", otherShard, of(5), 0, nothing)
	want(5, none, dutyNone)
	f.wipe(false)
	want(6, none, dutyExchange)
	want(7, none, dutyNone)
	if f.owned("k", otherShard, 6, false) || !f.owned("k", otherShard, 7, false) || f.commit("k", otherShard, claim{stamp: 6}, stored) {
		t.Error("after an invalidation of everything")
	}
}

// No position is proof that a member has applied an unlogged mark: it is owed until the member is told, whatever is
// forgotten of the fences, or until the invalidation itself arrives.
func TestFencesDebtOfUnloggedMarks(t *testing.T) {
	f, now := newTestFences()
	want := func(m codec.Mark, d duty) {
		t.Helper()
		clock := f.stamp(otherShard)
		for _, stamp := range []uint64{1, clock} {
			if got := f.debt("k", otherShard, stamp, at(f, clock)); got != (debt{m, d}) {
				t.Fatalf("debt = %v, want %v, %v", got, m, d)
			}
		}
	}
	f.note("k", otherShard, of(1), 0, nothing)
	want(of(1), dutyNone)
	f.wipe(false)
	want(of(1), dutyNone)
	flood(f, "k", fencesPerShard/2) // of another shard
	for i := range uint64(2 * fencesPerShard) {
		f.apply(fmt.Sprint("other", i), otherShard, mark(i+1), 0, nothing)
	}
	want(of(1), dutyNone)
	if _, n := f.note("k", otherShard, of(1), 0, nothing); n != noteKnown {
		t.Error("the mark is taken for a new one")
	}
	f.note("k", otherShard, of(2), 0, nothing)
	want(of(2), dutyAskAgain)
	f.told("k", otherShard, of(2), 7)
	want(of(1), dutyNone)
	f.note("k", otherShard, codec.Mark{Incarnation: 1, Seq: 5}, 0, nothing) // stands for the first
	want(codec.Mark{Incarnation: 1, Seq: 5}, dutyNone)
	f.apply("k", otherShard, codec.Mark{Incarnation: 1, Seq: 3}, 0, nothing) // does not stand for the fifth
	want(codec.Mark{Incarnation: 1, Seq: 5}, dutyNone)
	f.apply("k", otherShard, codec.Mark{Incarnation: 1, Seq: 5}, 0, nothing)
	want(codec.Mark{}, dutyNone)
	f.note("k", otherShard, of(3), 0, nothing)
	f.note("k", otherShard, of(4), 0, nothing)
	if _, n := f.note("k", otherShard, of(5), 0, nothing); n != noteNoRoom {
		t.Error("a fourth incarnation's mark has room")
	}
	f.self = 9
	f.apply("k", otherShard, of(9), 0, nothing) // stands for all
	want(codec.Mark{}, dutyNone)
	f.note("k", otherShard, of(3), 0, nothing)
	f.wipe(true)
	want(codec.Mark{}, dutyNone)
	f.note("k", otherShard, of(6), 0, nothing)
	*now += f.retention
	f.sweep()
	want(of(6), dutyNone)
	*now++
	f.sweep()
	want(codec.Mark{}, dutyNone)
}

// Unlogged marks are bounded: a key for which there is no room gets an invalidation of this node's own.
func TestFencesFullOfUnloggedMarks(t *testing.T) {
	f, _ := newTestFences()
	for i := range unloggedPerShard {
		if _, n := f.note(fmt.Sprint("k", i), otherShard, of(1), 0, nothing); n != noteApplied {
			t.Fatalf("no room for the mark of key %d", i)
		}
	}
	if _, n := f.note("one more", otherShard, of(1), 0, nothing); n != noteNoRoom {
		t.Error("there is room for more keys than unloggedPerShard")
	}
	if _, n := f.note("k0", otherShard, of(2), 0, nothing); n != noteApplied {
		t.Error("there is no room for another mark of a key that has one")
	}
}

// A copy that comes unasked is not taken while its giver may owe anything: it was told of no mark.
func TestPushedCopyOwesNothing(t *testing.T) {
	f, _ := newTestFences()
	commit := func(k *known) bool {
		return f.commit("k", otherShard, claim{stamp: k.clocks[fenceSlot(otherShard)/slotsPerShard], handed: true, pushed: k}, stored)
	}
	here := func() *known { k := at(f, f.stamp(otherShard)); k.incarnation = 0; return k }
	before := here()
	for i := range uint64(fenceMarks + 2) {
		f.apply("k", otherShard, of(i+1), 0, nothing)
	}
	if commit(before) {
		t.Error("taken from a giver that may lack an invalidation")
	}
	if !commit(here()) {
		t.Error("not taken from a giver that has applied all")
	}
	f.note("k", otherShard, of(20), 0, nothing)
	if commit(here()) {
		t.Error("taken while a mark is unlogged, of which no position tells")
	}
	f.apply("k", otherShard, of(20), 0, nothing)
	if !commit(here()) {
		t.Error("not taken after the invalidation itself has arrived")
	}
}
