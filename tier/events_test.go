package tier

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// events is a slog.Handler that keeps the names of events.
type events struct {
	mu   sync.Mutex // guards list
	list []string
}

func (*events) Enabled(context.Context, slog.Level) bool { return true }
func (e *events) WithAttrs([]slog.Attr) slog.Handler     { return e }
func (e *events) WithGroup(string) slog.Handler          { return e }
func (e *events) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "event" {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.list = append(e.list, a.Value.String())
		}
		return true
	})
	return nil
}

func (e *events) take() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := strings.Join(e.list, " ")
	e.list = nil
	return out
}

// The opening and the closing of the breaker are each logged once, however often it probes in between, and so are the
// start and the end of a drill.
func TestEvents(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o, e := &counter{}, new(events)
		cfg := plain(ByKey(o.load))
		cfg.Logger, cfg.Freshness.ErrorTTL = slog.New(e), -1
		cfg.Origin.Breaker = Breaker{Failures: 0.1, Minimum: 2, Pause: time.Second, Probes: 2}
		c := open(t, cfg)
		o.setFail(errDown)
		for range 50 {
			_, _ = c.Get(t.Context(), "k")
			time.Sleep(100 * time.Millisecond)
		}
		if got := e.take(); got != owner.EventBreakerOpened {
			t.Errorf("while the origin fails: %s", got)
		}
		if n := c.Stats().Governor.BreakerOpenings; n < 3 {
			t.Errorf("%d openings", n)
		}
		o.setFail(nil)
		for i := range 20 {
			_, _ = c.Get(t.Context(), strings.Repeat("x", i+1))
			time.Sleep(100 * time.Millisecond)
		}
		if got := e.take(); got != owner.EventBreakerClosed {
			t.Errorf("when it is back: %s", got)
		}

		var wg sync.WaitGroup
		wg.Go(func() { _, _ = c.Drill(t.Context(), 0.5, 4*time.Second) })
		time.Sleep(2 * time.Second)
		must(t, c, "x")
		if d := c.Stats().Drill; !d.Running || d.Fraction != 0.5 || d.Duration != 4 || d.Seconds != 2 || d.Ended != "" {
			t.Errorf("while it runs: %+v", d)
		}
		wg.Wait()
		if d := c.Stats().Drill; d.Running || d.Ended != "time" || d.Seconds != 4 {
			t.Errorf("afterwards: %+v", d)
		}
		if got := e.take(); got != owner.EventDrillBegun+" "+owner.EventDrillEnded {
			t.Errorf("a drill: %s", got)
		}
	})
}

func must(t *testing.T, c *Cache[string], key string) string {
	t.Helper()
	v, err := c.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A flush is logged. Invalidations that do not reach every member are logged as well, but not each of them.
func TestEventsOfInvalidations(t *testing.T) {
	bubble(t, func(t *testing.T) {
		sim, e := newSim(t, 2), new(events)
		caches := sim.start(newOrigin(), Config[simValue]{
			Freshness: Freshness{TTL: time.Minute}, Logger: slog.New(e), InvalidateTimeout: time.Second,
		})
		defer sim.stop(caches)
		synctest.Wait()
		c := caches[sim.names[0]]
		c.own.Journal.Receive(&codec.News{Bases: []codec.Base{{Incarnation: 77, Seq: 5, Flush: true}}})
		if got := e.take(); got != owner.EventFlushed {
			t.Errorf("a flush: %s", got)
		}
		sim.setRule(func(from, to string, kind codec.Kind, answer bool) hop { return hop{lost: true} })
		for range 30 { // 30 seconds
			var unreached *InvalidateError
			if err := c.Invalidate(t.Context(), "k"); !errors.As(err, &unreached) {
				t.Fatal(err)
			}
		}
		sim.setRule(nil)
		if got := e.take(); got != owner.EventUnconfirmed {
			t.Errorf("while nobody is reached: %s", got)
		}
		time.Sleep(time.Minute)
	})
}

// The description of the stats endpoint names every event.
func TestEventNames(t *testing.T) {
	b, err := os.ReadFile("../peer/STATS.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("internal/owner/events.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range regexp.MustCompile(`\t[eE]vent\w+ += "(\w+)"`).FindAllSubmatch(source, -1) {
		names = append(names, string(m[1]))
	}
	for _, name := range names {
		if !strings.Contains(string(b), "`"+name+"`") {
			t.Errorf("%q is not in STATS.md", name)
		}
	}
	slices.Sort(names)
	if len(slices.Compact(names)) != 8 {
		t.Errorf("%d names: %v", len(names), names)
	}
}

// The description of the stats endpoint names every field of a cache's statistics.
func TestStatsDocumented(t *testing.T) {
	b, err := os.ReadFile("../peer/STATS.md")
	if err != nil {
		t.Fatal(err)
	}
	text, seen := string(b), make(map[reflect.Type]bool)
	var look func(typ reflect.Type)
	look = func(typ reflect.Type) {
		for typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || seen[typ] {
			return
		}
		seen[typ] = true
		for f := range typ.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !f.Anonymous && (name == "" || !strings.Contains(text, "`"+name+"`")) {
				t.Errorf("%v.%s: %q is not in STATS.md", typ, f.Name, name)
			}
			look(f.Type)
		}
	}
	look(reflect.TypeFor[Stats]())
	for _, names := range [][]string{store.StaleNames[:], governor.BreakerStates[:]} {
		for _, name := range names {
			if !strings.Contains(text, "`"+name+"`") {
				t.Errorf("%q is not in STATS.md", name)
			}
		}
	}
}
