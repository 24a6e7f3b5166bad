package harness

import (
	"context"
	"errors"
	"math"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weircache/weir/tier"
)

const batches = `
duration: 1s
cluster: {nodes: 2}
origin: {latency: {kind: fixed, p50: 20ms}}
load: [{loop: open, rate: 100, callers: 16, arrival: even, keys: {kind: uniform, count: 50}, mix: {many: 1, batch: 10}}]
`

// batcher is a fake that reads batches in one call, with the behaviour of many.
type batcher struct {
	fake
	many func(b *batcher, keys []string) ([][]byte, error)
}

func (b *batcher) Start(ctx context.Context, env Env) (Cluster, error) {
	_, err := b.fake.Start(ctx, env)
	return b, err
}

func (b *batcher) Many(_ context.Context, _ int, keys []string) ([][]byte, error) {
	return b.many(b, keys)
}

func (b *batcher) read(keys []string) [][]byte {
	values := make([][]byte, len(keys))
	for i, key := range keys {
		values[i], _ = b.cached(context.Background(), key) // its origin does not fail
	}
	return values
}

// TestMany checks that a batch counts a get for each key and one latency, with and without a call for it.
func TestMany(t *testing.T) {
	var most atomic.Int64
	single := &fake{}
	single.get = func(ctx context.Context, f *fake, key string) ([]byte, error) {
		raise(&most, 1)
		return f.cached(ctx, key)
	}
	together := &batcher{many: func(b *batcher, keys []string) ([][]byte, error) { return b.read(keys), nil }}
	for _, y := range []System{single, together} {
		r := virtually(t, batches, y)
		m, one := r.Systems[0].Overall, r.Systems[0].Rounds[0]
		if m.Gets < 980 || m.Gets > 1000 || math.Mod(m.Gets, 10) != 0 || m.Due != 50 || m.Errors != 0 || m.Wrong != 0 || m.MaxAge == 0 {
			t.Errorf("%T: %+v", y, m)
		}
		offered := 0.0
		for _, p := range one.Timeline {
			offered += p.Offered * one.Width.D().Seconds()
		}
		if math.Abs(offered-m.Gets) > 10 { // the last batch may be due at the very end
			t.Errorf("%T: the timeline has %.1f gets of %.0f", y, offered, m.Gets)
		}
		// A single load takes 20 ms. Without Many all keys of a batch are loaded at once; this Many loads one by one.
		if slow := m.Max > 100; slow != (y == System(together)) {
			t.Errorf("%T: the slowest batch took %v ms", y, m.Max)
		}
	}
	if most.Load() == 0 {
		t.Error("Get was not called for a cluster without Many")
	}
}

// TestManyFails checks that every key of a batch is judged by itself.
func TestManyFails(t *testing.T) {
	for name, c := range map[string]struct {
		many        func(b *batcher, keys []string) ([][]byte, error)
		errs, wrong float64 // of the gets
	}{
		"one key": {many: func(b *batcher, keys []string) ([][]byte, error) {
			values := b.read(keys)
			values[3] = nil
			return values, ErrOrigin
		}, errs: 0.1},
		"all keys":      {many: func(*batcher, []string) ([][]byte, error) { return nil, ErrOrigin }, errs: 1},
		"too few":       {many: func(b *batcher, keys []string) ([][]byte, error) { return b.read(keys)[:9], nil }, errs: 1},
		"without a say": {many: func(*batcher, []string) ([][]byte, error) { return make([][]byte, 10), nil }, wrong: 1},
		"another's": {many: func(b *batcher, keys []string) ([][]byte, error) {
			values := b.read(keys)
			values[0], values[1] = values[1], values[0]
			return values, nil
		}, wrong: 0.2},
	} {
		m := virtually(t, batches, &batcher{many: c.many}).Systems[0].Overall
		if m.Gets < 980 || math.Abs(m.Errors-c.errs*m.Gets) > 0.5 || math.Abs(m.Wrong-c.wrong*m.Gets) > 0.5 {
			t.Errorf("%s: %.0f gets, %.0f errors, %.0f wrong", name, m.Gets, m.Errors, m.Wrong)
		}
	}
}

// TestManyFindsStaleAnswers checks that each key's age and version counts.
func TestManyFindsStaleAnswers(t *testing.T) {
	text := strings.Replace(batches, "mix: {many: 1, batch: 10}", "mix: {many: 9, write: 1, batch: 10}", 1)
	m := virtually(t, text, &keeper{}).Systems[0].Overall
	if m.Broken < 20 || m.MaxBroken <= 0 || m.Writes == 0 {
		t.Errorf("a cache that ignores invalidations: %+v", m)
	}
}

// TestWeirReadsMany runs batches on weir's nodes in this process and in others.
func TestWeirReadsMany(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"inprocess", "processes"} {
		again(t, 50, func(t *testing.T) float64 {
			r := run(t, t.Context(), `
duration: 1500ms
cluster: {nodes: 2, kind: `+kind+`}
origin: {latency: {kind: fixed, p50: 2ms}}
load: [{loop: open, rate: 20, timeout: 5s, keys: {kind: uniform, count: 50}, mix: {many: 1, batch: 20}}]
`, Weir{Exe: []string{self}})
			m := r.Systems[0].Overall
			late := r.Systems[0].Rounds[0].Errors["never begun"] // the machine was busy
			if r.Partial != "" || m.Wrong != 0 || m.Errors != float64(late) || m.OriginCalls > 100 {
				t.Errorf("%s: %q, %v, %+v", kind, r.Partial, r.Systems[0].Rounds[0].Errors, m)
			}
			return m.Gets
		})
	}
}

// TestManyCrossesProcesses checks that a partial failure keeps its values and its error.
func TestManyCrossesProcesses(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := parse(t, "duration: 1s\ncluster: {kind: processes, nodes: 1}\nload: [{}]\n")
	c, err := startProcesses(ctx, Env{Scenario: s, Load: func(_ context.Context, key string) ([]byte, error) {
		if key == "bad" {
			return nil, ErrOrigin
		}
		return []byte(key), nil
	}}, []string{self})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	}()
	values, errs := batch(ctx, c.(Batcher), 0, []string{"a", "bad", "b"})
	if string(values[0]) != "a" || string(values[2]) != "b" || len(values[1]) != 0 || errs[0] != nil || errs[2] != nil || !errors.Is(errs[1], ErrOrigin) {
		t.Errorf("%q, %v", values, errs)
	}
	if err := c.Fault(ctx, Step{Do: StepKill, Node: 0}); err != nil {
		t.Fatal(err)
	}
	if _, errs := batch(ctx, c.(Batcher), 0, []string{"a", "b"}); !errors.Is(errs[0], tier.ErrClosed) || !errors.Is(errs[1], tier.ErrClosed) {
		t.Errorf("on a node that is down: %v", errs)
	}
}
