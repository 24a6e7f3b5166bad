package peer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Handler returns the node's HTTP handler. The service may mount it where it likes, with or without http.StripPrefix,
// because the handler looks only at the end of the path:
//
//	/            the page: the cluster, live
//	/stats       the Stats document as JSON; with ?cluster=1 the ClusterStats document
//	/events      ClusterStats again and again, as server-sent events
//	/metrics     the node's and its namespaces' metrics for Prometheus
//	/healthz     200 while the node runs, 503 once it is closed
//	/readyz      200 if the node takes part, else 503 and why; see Ready
//	/key         which member owns a key and which have copies: ?namespace=N&key=K
//	/invalidate  POST: see InvalidateRequest
//	/warm        POST: see WarmRequest
//	/drill       POST: see DrillRequest
//
// The last four need Config.OperatorToken. Values are never shown; keys are shown where a cache's own configuration allows
// it. Everybody with access to the handler can read the rest, so mount it where only the right people have access. It is
// safe for concurrent use.
//
// A stream of events lasts until the node is closed, so close the node before an
// http.Server whose Shutdown waits for open requests.
func (n *Node) Handler() http.Handler {
	metrics := promhttp.HandlerFor(n.metrics.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes})
	page, e := newPage(), endpoint{n}
	routes := map[string]http.HandlerFunc{
		"":           page.serveIndex,
		"stats":      e.serveStats,
		"events":     e.serveStream,
		"metrics":    metrics.ServeHTTP,
		"healthz":    func(w http.ResponseWriter, _ *http.Request) { serveState(w, e.unhealthy()) },
		"readyz":     func(w http.ResponseWriter, _ *http.Request) { serveState(w, n.unready(), n.spaces.warming()...) },
		"key":        e.serveKey,
		"invalidate": e.serveInvalidate,
		"warm":       e.serveWarm,
		"drill":      e.serveDrill,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		if allowed := methods(name); !slices.Contains(allowed, r.Method) {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			http.Error(w, "only "+strings.Join(allowed, " and "), http.StatusMethodNotAllowed)
			return
		}
		if serve := routes[name]; serve != nil {
			serve(w, r)
		} else if !page.serve(w, r, name) {
			http.Error(w, "there are the page at /, stats, events, metrics, healthz, readyz, key, invalidate, warm and drill here", http.StatusNotFound)
		}
	})
}

// endpoint answers the requests of an operator about a node, and carries out the operator's commands.
type endpoint struct{ n *Node }

// maxScrapes is how many scrapes may gather metrics at once.
const maxScrapes = 4

// methods returns the HTTP methods that are allowed for what is served under the name.
func methods(name string) []string {
	if name == "invalidate" || name == "warm" || name == "drill" {
		return []string{http.MethodPost}
	}
	return []string{http.MethodGet, http.MethodHead}
}

func (e endpoint) serveStats(w http.ResponseWriter, r *http.Request) {
	switch of := r.URL.Query().Get("cluster"); of {
	case "", "0":
		body, err := e.statsJSON()
		e.serveJSON(w, http.StatusOK, json.RawMessage(body), err)
	case "1":
		doc, err := e.n.ClusterStats(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		e.serveJSON(w, http.StatusOK, doc, nil)
	default:
		http.Error(w, fmt.Sprintf("cluster=%.20q: it is 1 for the whole cluster, or left out", of), http.StatusBadRequest)
	}
}

// serveJSON answers with a document, or with an internal error if err is not nil.
func (e endpoint) serveJSON(w http.ResponseWriter, code int, doc any, err error) {
	var body []byte
	if err == nil {
		body, err = json.MarshalIndent(doc, "", "  ")
	}
	if err != nil {
		e.n.logger.Error("an answer cannot be encoded", "error", err)
		http.Error(w, "the answer cannot be encoded", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) // the client is gone: nobody is left to tell
}

// serveState answers 200, or 503 with the reason.
func serveState(w http.ResponseWriter, reason string, remarks ...string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if reason != "" {
		w.WriteHeader(http.StatusServiceUnavailable)
	} else {
		reason = "ok"
	}
	for _, line := range append([]string{reason}, remarks...) {
		_, _ = io.WriteString(w, line+"\n")
	}
}

// redirectToSlash redirects a request for the mount point without its last slash to the one with it, because the page's own
// addresses are relative. It reports whether it did.
func redirectToSlash(w http.ResponseWriter, r *http.Request) bool {
	asked, _, _ := strings.Cut(r.RequestURI, "?")
	if asked == "" || strings.HasSuffix(asked, "/") || !strings.HasPrefix(asked, "/") {
		return false
	}
	w.Header().Set("Location", "./"+path.Base(asked)+"/")
	w.WriteHeader(http.StatusTemporaryRedirect)
	return true
}

// unhealthy returns why the node does not run, or "" if it does.
func (e endpoint) unhealthy() string {
	e.n.mu.Lock()
	defer e.n.mu.Unlock()
	if e.n.closing {
		return "closed"
	}
	return ""
}

// unready returns why the node does not take part, or "" if it does.
func (n *Node) unready() string {
	n.mu.Lock()
	leaving, closing := n.leaving, n.closing
	n.mu.Unlock()
	switch {
	case closing:
		return "closed"
	case leaving:
		return "leaving"
	case n.roster.Superseded():
		return "another node has taken this node's name"
	case !n.roster.Joined() && n.View().Len() < 2:
		return "no seed has answered yet"
	}
	if names := n.roster.MostlyDiffering(); names != nil {
		return "most of the members have another view than this node, and may not see it: " + fewNames(names)
	}
	return n.spaces.waiting()
}

// Ready returns nil if the node takes part and can be given traffic, as /readyz reports, or else an error whose text is the
// reason. A node that has just started waits for its caches. Each cache compares with every member which invalidations both
// have applied, and until then keeps less of what others give it. The wait is at most 15 seconds from when the cache was
// made. Make the caches before you call Ready. It is safe for concurrent use.
func (n *Node) Ready() error {
	if reason := n.unready(); reason != "" {
		return errors.New("peer: not ready: " + reason)
	}
	return nil
}

// waitingShown is how many members are named in a list of members that a node waits for.
const waitingShown = 5

// fewNames lists the first few names, and says how many more there are.
func fewNames(names []string) string {
	more := ""
	if n := len(names) - waitingShown; n > 0 {
		names, more = names[:waitingShown], fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(names, ", ") + more
}

func hex16(v uint64) string { return fmt.Sprintf("%016x", v) }
