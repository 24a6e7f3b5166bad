package tier

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// Each number of a feed has a metric of its own.
func TestFollowMetrics(t *testing.T) {
	cfg := plain(ByKey(new(counter).load))
	cfg.Namespace = "product"
	c := open(t, cfg)
	f := &c.followed
	for i, n := range []*atomic.Int64{&f.Following, &f.Applied, &f.Repeated, &f.Refused, &f.Flushes, &f.Failures, &f.Unconfirmed, &f.Lag} {
		n.Store(int64(i + 1))
	}
	f.Lag.Store(int64(8 * time.Second))
	var want strings.Builder
	for _, m := range []struct{ name, kind, help, labels, value string }{
		{"follow_running", "gauge", "Calls of Follow that run on this node.", "", "1"},
		{"follow_flushes_total", "counter", "Number of times the namespace was flushed because its feed could not tell all events.", "", "5"},
		{"follow_failures_total", "counter", "Calls to a feed that failed.", "", "6"},
		{"follow_unconfirmed_total", "counter", "Acknowledgements of a feed that had to wait for a member.", "", "7"},
		{"follow_lag_seconds", "gauge", "Time from the newest event's write to its application on this node, if the feed gives times.", "", "8"},
		{"follow_down_seconds", "gauge", "Time for which the feed has failed so far. 0: it works.", "", "0"},
	} {
		fmt.Fprintf(&want, "# HELP weir_%s %s\n# TYPE weir_%s %s\nweir_%s{namespace=\"product\"} %s\n", m.name, m.help, m.name, m.kind, m.name, m.value)
	}
	want.WriteString("# HELP weir_follow_events_total Events of feeds, by result. refused: the event had a key or tag that is not valid.\n# TYPE weir_follow_events_total counter\n")
	for i, result := range []string{"applied", "repeated", "refused"} {
		fmt.Fprintf(&want, "weir_follow_events_total{namespace=\"product\",result=%q} %d\n", result, i+2)
	}
	if err := testutil.CollectAndCompare(c.Collector(), strings.NewReader(want.String()), "weir_follow_running", "weir_follow_flushes_total",
		"weir_follow_failures_total", "weir_follow_unconfirmed_total", "weir_follow_lag_seconds", "weir_follow_down_seconds", "weir_follow_events_total"); err != nil {
		t.Error(err)
	}
}

func TestCollector(t *testing.T) {
	o := &counter{}
	cfg := plain(ByKey(o.load))
	cfg.Namespace = "product"
	c := open(t, cfg)
	get(t, c, "k", "k#1")
	get(t, c, "k", "k#1")
	if problems, err := testutil.CollectAndLint(c.Collector()); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	reg := prometheus.NewPedanticRegistry()
	for range 2 {
		if err := reg.Register(c.Collector()); err != nil {
			t.Fatal(err)
		}
		if _, err := reg.Gather(); err != nil {
			t.Fatal(err)
		}
		if !reg.Unregister(c.Collector()) {
			t.Fatal("was not registered")
		}
	}
	if s := c.Stats(); s.Owned != 1 || s.Fill != 1 || s.Loads != 1 || s.OwnedEntries != 1 {
		t.Errorf("%+v", s)
	}
}

func TestNearHitDoesNotAllocate(t *testing.T) {
	o := &counter{}
	cfg := plain(ByKey(o.load))
	cfg.NearBytes, cfg.Freshness.NearTTL = 1<<20, cfg.Freshness.TTL
	c := open(t, cfg)
	ctx := t.Context()
	for c.Stats().Near == 0 { // the near tier applies a value a little later
		get(t, c, "k", "k#1")
	}
	if n := testing.AllocsPerRun(1000, func() { _, _ = c.Get(ctx, "k") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
