package peer

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weircache/weir/codec"
)

// counting is a namespace's handler with metrics.
type counting struct{ prometheus.Counter }

func newCounting() counting {
	return counting{prometheus.NewCounter(prometheus.CounterOpts{Name: "test_gets_total", Help: "Gets."})}
}

func (counting) TryServe(*codec.Request, *codec.Response) bool          { return false }
func (counting) Serve(context.Context, *codec.Request, *codec.Response) {}
func (counting) Stats() any                                             { return map[string]int{"gets": 3} }

func get(h http.Handler, path string) (int, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestHandler(t *testing.T) {
	user := prometheus.NewRegistry()
	cfg := quick("a")
	cfg.Registerer = user
	n := start(t, cfg)
	unregister, err := n.Register("product", 1, newCounting())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Register("product", 1, newCounting()); err == nil {
		t.Error("a namespace was registered twice")
	}
	if _, err := n.Register("", 1, newCounting()); err == nil {
		t.Error("a namespace without a name was registered")
	}

	mux := http.NewServeMux()
	mux.Handle("/weir/", n.Handler())
	mux.Handle("/other/", http.StripPrefix("/other", n.Handler()))
	for _, prefix := range []string{"/weir", "/other"} {
		for _, path := range []string{"/stats", "/stats?cluster=0"} {
			code, body := get(mux, prefix+path)
			var s Stats
			if err := json.Unmarshal([]byte(body), &s); code != 200 || err != nil {
				t.Fatalf("%s%s: %d %v", prefix, path, code, err)
			}
			if s.Schema != StatsSchema || s.Node.Name != "a" || !s.Node.Ready || len(s.View.Members) != 1 || s.View.Members[0].Share != 1 ||
				s.View.Fingerprint != hex16(n.View().Fingerprint()) || s.Namespaces["product"] == nil || s.Connections == nil {
				t.Errorf("%s%s: %s", prefix, path, body)
			}
		}
		if code, body := get(mux, prefix+"/metrics"); code != 200 || !strings.Contains(body, `weir_members{state="alive"} 1`) || !strings.Contains(body, "test_gets_total") {
			t.Errorf("metrics: %d %s", code, body)
		}
		for _, path := range []string{"/healthz", "/readyz"} {
			if code, body := get(mux, prefix+path); code != 200 {
				t.Errorf("%s: %d %s", path, code, body)
			}
		}
		if code, _ := get(mux, prefix+"/values"); code != 404 {
			t.Errorf("values: %d", code)
		}
	}
	w := httptest.NewRecorder()
	n.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/stats", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}

	// Another node cannot use the same registerer, and its failure does not unregister the first one's metrics.
	cfg.Name = "b"
	if _, err := Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "WrapRegistererWith") {
		t.Errorf("a second node on one registerer: %v", err)
	}
	if !has(t, user, "weir_members") || !has(t, user, "test_gets_total") {
		t.Error("the user's registry lacks metrics")
	}
	unregister()
	unregister()
	if has(t, user, "test_gets_total") {
		t.Error("the namespace's metrics are still there")
	}
	_ = n.Close()
	if has(t, user, "weir_members") {
		t.Error("the closed node's metrics are still there")
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, _ := get(n.Handler(), path); code != 503 {
			t.Errorf("%s of a closed node: %d", path, code)
		}
	}
}

func has(t *testing.T, r *prometheus.Registry, name string) bool {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return true
		}
	}
	return false
}
