package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/weircache/weir/bench/scenario"
)

// existing is a set of running services that are measured over HTTP. Their values do not come from the harness, so
// their ages and versions are unknown, and their origin is visible only through their statistics.
type existing struct {
	c      scenario.Cluster
	client *http.Client
	before []map[string]float64 // each service's counters at the start; nil: no statistics
	unseen []string             // the services whose counters were unavailable at the end
}

func startExisting(ctx context.Context, s *scenario.Scenario) (Cluster, error) {
	callers := 0
	for _, l := range s.Load {
		callers += l.Callers
	}
	e := &existing{c: s.Cluster, client: &http.Client{Transport: &http.Transport{
		MaxIdleConns: callers + 16, MaxIdleConnsPerHost: callers + 16, DisableCompression: true,
	}}}
	// Name a service that does not answer at the start immediately.
	for i := range e.c.Addresses {
		if _, err := e.Get(ctx, i, "weir-bench-is-there"); err != nil && !errors.Is(err, errStatus) {
			return nil, err
		}
	}
	if e.c.Stats != "" {
		for _, a := range e.c.Addresses {
			counters, err := e.stats(ctx, a)
			if err != nil {
				return nil, err
			}
			e.before = append(e.before, counters)
		}
	}
	return e, nil
}

// errStatus says that a service answered with an unexpected status.
var errStatus = errors.New("harness: HTTP status")

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 64 << 20

// Get requests a key from a service. 404 counts as an answer.
func (e *existing) Get(ctx context.Context, node int, key string) ([]byte, error) {
	path := strings.ReplaceAll(e.c.Path, "{key}", url.PathEscape(key))
	return e.fetch(ctx, strings.TrimSuffix(e.c.Addresses[node], "/")+path)
}

func (e *existing) fetch(ctx context.Context, url string) ([]byte, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	a, err := e.client.Do(q)
	if err != nil {
		return nil, err
	}
	defer func() { _ = a.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(a.Body, maxAnswer))
	if err == nil && a.StatusCode != http.StatusOK && a.StatusCode != http.StatusNotFound {
		err = fmt.Errorf("%w %d", errStatus, a.StatusCode)
	}
	return b, err
}

// Invalidate is not available for a service from outside.
func (e *existing) Invalidate(context.Context, int, string) error { return ErrCannot }

// Fault returns an error: the harness cannot cause faults here.
func (e *existing) Fault(_ context.Context, s Step) error { return fmt.Errorf("%w %s", ErrCannot, s) }

// Close closes the connections.
func (e *existing) Close(context.Context) error {
	e.client.CloseIdleConnections()
	return nil
}

// Counters returns how much the services' own counters have risen; nil without statistics. A service that has
// stopped answering does not count. For a service that has restarted, its counts since then count.
func (e *existing) Counters() map[string]float64 {
	if e.before == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	type reading struct {
		counters map[string]float64
		err      error
	}
	readings := make([]reading, len(e.c.Addresses))
	var wg sync.WaitGroup
	for i, a := range e.c.Addresses { // concurrently: a service that hangs must not delay the others
		wg.Go(func() { readings[i].counters, readings[i].err = e.stats(ctx, a) })
	}
	wg.Wait()
	sum := make(map[string]float64)
	e.unseen = nil
	for i, r := range readings {
		if r.err != nil {
			e.unseen = append(e.unseen, e.c.Addresses[i])
			continue
		}
		anew := false
		for name, x := range r.counters {
			anew = anew || x < e.before[i][name]
		}
		for name, x := range r.counters {
			if !anew {
				x -= e.before[i][name]
			}
			sum[name] += x
		}
	}
	if len(e.unseen) == len(readings) {
		return nil
	}
	return sum
}

// stats adds up the counters of all namespaces of a service.
func (e *existing) stats(ctx context.Context, a string) (map[string]float64, error) {
	sum := make(map[string]float64)
	at := strings.TrimSuffix(a, "/") + e.c.Stats
	b, err := e.fetch(ctx, at)
	if err != nil {
		return nil, fmt.Errorf("harness: the statistics at %s: %w", at, err)
	}
	var doc struct {
		Namespaces map[string]struct {
			Near   float64            `json:"near"`
			Owned  float64            `json:"owned"`
			Fill   float64            `json:"fill"`
			Stale  float64            `json:"stale"`
			Errors float64            `json:"errors"`
			Loads  float64            `json:"loads"`
			By     map[string]float64 `json:"loads_by_cause"`
			Secs   float64            `json:"load_seconds"`
		} `json:"namespaces"`
	}
	if err := json.Unmarshal(b, &doc); err != nil || doc.Namespaces == nil {
		return nil, fmt.Errorf("harness: at %s there are no statistics of a weir node", at)
	}
	for _, n := range doc.Namespaces {
		sum["near"] += n.Near
		sum["owned"] += n.Owned
		sum["fill"] += n.Fill
		sum["stale"] += n.Stale
		sum["errors"] += n.Errors
		sum["loads"] += n.Loads
		sum["load_seconds"] += n.Secs
		for cause, x := range n.By {
			sum["loads_"+cause] += x
		}
	}
	return sum, nil
}
