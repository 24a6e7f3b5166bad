package tier

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

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
	if raceOn {
		t.Log("allocations are not counted under the race detector")
		return
	}
	o := &counter{}
	cfg := plain(ByKey(o.load))
	cfg.NearBytes, cfg.Freshness.NearTTL = 1<<20, cfg.Freshness.TTL
	c := open(t, cfg)
	ctx := t.Context()
	for c.Stats().Near == 0 { // the near tier takes a value a little later
		get(t, c, "k", "k#1")
	}
	if n := testing.AllocsPerRun(1000, func() { _, _ = c.Get(ctx, "k") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
