package peer

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/weircache/weir/codec"
)

// Handler returns the node's HTTP handler, for the service to mount where it likes,
// with or without http.StripPrefix; it looks at the end of the path only:
//
//	/stats    the Stats document as JSON; also at the mount point itself, "/"
//	/metrics  the node's and its namespaces' metrics for Prometheus
//	/healthz  200 while the node runs, 503 once it is closed
//	/readyz   200 if the node takes part, else 503 and why
//
// It shows no keys and no values, and changes nothing. Safe for concurrent use.
func (n *Node) Handler() http.Handler {
	metrics := promhttp.HandlerFor(n.registry, promhttp.HandlerOpts{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
			return
		}
		switch r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:] {
		case "", "stats":
			n.serveStats(w)
		case "metrics":
			metrics.ServeHTTP(w, r)
		case "healthz":
			serveState(w, n.unhealthy())
		case "readyz":
			serveState(w, n.unready())
		default:
			http.Error(w, "there are stats, metrics, healthz and readyz here", http.StatusNotFound)
		}
	})
}

func (n *Node) serveStats(w http.ResponseWriter) {
	body, err := json.MarshalIndent(n.Stats(), "", "  ")
	if err != nil {
		n.logger.Error("the statistics cannot be encoded", "error", err)
		http.Error(w, "the statistics cannot be encoded", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(append(body, '\n')) // the asker is gone: nobody to tell
}

// serveState answers 200, or 503 with the reason.
func serveState(w http.ResponseWriter, reason string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if reason != "" {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, reason+"\n")
		return
	}
	_, _ = io.WriteString(w, "ok\n")
}

// unhealthy says why the node does not run; "" if it does.
func (n *Node) unhealthy() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closing {
		return "closed"
	}
	return ""
}

// unready says why the node takes no part; "" if it does.
func (n *Node) unready() string {
	n.mu.Lock()
	leaving, closing := n.leaving, n.closing
	n.mu.Unlock()
	switch {
	case closing:
		return "closed"
	case leaving:
		return "leaving"
	case n.superseded.Load():
		return "another node has taken this node's name"
	case !n.joined.Load() && n.View().Len() < 2:
		return "no seed has answered yet"
	}
	return ""
}

// handlers returns a copy of what is registered.
func (n *Node) handlers() map[string]codec.Handler {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.namespaces)
}

func hex16(v uint64) string { return fmt.Sprintf("%016x", v) }
