package peer

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer/internal/wiretest"
)

// TestDataMetrics checks that the data plane's counters reach a registry, on the calling node and on the answering one.
func TestDataMetrics(t *testing.T) {
	n1 := start(t, quick("n1"))
	cfg := quick("n2", n1.Addr())
	cfg.Connections = 1
	n2 := start(t, cfg)
	awaitNames(t, "n1 n2", n1, n2)
	if _, err := n1.Register("n", 1, wiretest.Value("v")); err != nil {
		t.Fatal(err)
	}
	to, _ := n2.View().Member("n1")
	for range 3 {
		var resp codec.Response
		req := codec.Request{Kind: codec.KindGet, Namespace: []byte("n"), Schema: 1, Key: []byte("hit")}
		if err := n2.Call(t.Context(), to, &req, &resp); err != nil {
			t.Fatal(err)
		}
		resp.Release()
	}
	var asks, answers map[string]float64
	wiretest.Until(t, "for both sides to have counted the same bytes", func() bool { // they are counted after they are sent
		asks, answers = gather(t, n2.metrics.registry), gather(t, n1.metrics.registry)
		in, out := asks["weir_peer_bytes_total in"], asks["weir_peer_bytes_total out"]
		return in > 0 && out > 0 && answers["weir_peer_bytes_total in"] == out && answers["weir_peer_bytes_total out"] == in
	})
	for name, want := range map[string]float64{
		"weir_peer_calls_total": 3, "weir_peer_call_errors_total": 0, "weir_peer_dials_total": 1,
		"weir_peer_calls_in_flight": 0, "weir_peer_connections here": 1, "weir_peer_in_flight_bytes": 0,
	} {
		if got, ok := asks[name]; !ok || got != want {
			t.Errorf("%s is %v (%v), want %v", name, got, ok, want)
		}
	}
	if got := answers["weir_peer_requests_total"]; got != 3 {
		t.Errorf("%v requests", got)
	}
	if got := answers["weir_peer_connections there"]; got != 1 {
		t.Errorf("%v connections", got)
	}
}

// gather reads a registry: values by name and labels.
func gather(t *testing.T, g prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			out[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return out
}
