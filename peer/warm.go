package peer

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	// warmTime bounds one operator's request to warm keys.
	warmTime = time.Minute
	// warmFailures is how many failed keys are named.
	warmFailures = 20
)

// WarmRequest is the JSON body of POST /warm, at most 1 MiB. The owners of the keys load those of which they have no copy,
// at the lowest class.
type WarmRequest struct {
	Namespace string   `json:"namespace"`
	Keys      []string `json:"keys"`
}

// WarmResult is the answer to a WarmRequest. The status is 200 if no key failed, and 502 otherwise. A key that is not done
// after a minute has failed; it is safe to send the request again.
type WarmResult struct {
	Keys     int           `json:"keys"`               // number of different keys given
	Present  int           `json:"present"`            // their owners already had a copy
	Loaded   int           `json:"loaded"`             // their owners have a copy now
	NotFound int           `json:"not_found"`          // the origin has no value
	Failed   int           `json:"failed"`             // none of these
	Failures []WarmFailure `json:"failures,omitempty"` // of some, 20 at most
}

// WarmFailure is a key that was not warmed.
type WarmFailure struct {
	Key   string `json:"key"`
	Error string `json:"error"`
}

// warmable is a namespace in which an operator can warm keys.
type warmable interface {
	// WarmFor does what Warm of a cache does. If it returns an error, nothing was done.
	WarmFor(ctx context.Context, keys []string) (present, loaded, notFound int, failed map[string]error, err error)
}

func (e endpoint) serveWarm(w http.ResponseWriter, r *http.Request) {
	var req WarmRequest
	if !e.requireOperator(w, r) || !e.readOrder(w, r, &req, `{"namespace": "...", "keys": ["..."]}`) {
		return
	}
	if len(req.Keys) == 0 {
		e.refuse(w, http.StatusBadRequest, "no keys are named: there is nothing to warm")
		return
	}
	if !e.requireNamespace(w, req.Namespace) {
		return
	}
	space, ok := e.n.spaces.all()[req.Namespace].(warmable)
	if !ok {
		e.refuse(w, http.StatusNotImplemented, "namespace %.130q cannot be warmed from outside", req.Namespace)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), warmTime)
	defer cancel()
	present, loaded, notFound, failed, err := space.WarmFor(ctx, req.Keys)
	if err != nil {
		e.refuse(w, http.StatusServiceUnavailable, "%v", err)
		return
	}
	out, code := WarmResult{Present: present, Loaded: loaded, NotFound: notFound, Failed: len(failed)}, http.StatusOK
	out.Keys = present + loaded + notFound + len(failed)
	for key, err := range failed {
		out.Failures = append(out.Failures, WarmFailure{key, err.Error()})
	}
	slices.SortFunc(out.Failures, func(a, b WarmFailure) int { return strings.Compare(a.Key, b.Key) })
	if out.Failed > 0 {
		out.Failures, code = out.Failures[:min(len(out.Failures), warmFailures)], http.StatusBadGateway
	}
	e.n.logger.Info("an operator has warmed keys", "namespace", req.Namespace, "keys", out.Keys, "loaded", out.Loaded, "failed", out.Failed)
	e.serveJSON(w, code, out, nil)
}
