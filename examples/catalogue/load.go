package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// window is what callers observed in one time span.
type window struct {
	requests, near, owned, fill, stale, errors int64
	hotWaited, hot                             int64 // requests for the hottest key: those that waited for a fill, and all of them
	took                                       []time.Duration
}

// load sends Zipf traffic at a steady rate to the nodes that are up, to weir and to the yardstick alike.
type load struct {
	client *http.Client
	urls   []string
	up     []atomic.Bool
	keys   int
	rate   int // requests per second to each
	hot    string

	mu    sync.Mutex // guards the rest
	now   window
	total window
}

func newLoad(urls []string, keys, rate int) *load {
	l := &load{
		client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 256, MaxConnsPerHost: 0, IdleConnTimeout: time.Minute}},
		urls:   urls, up: make([]atomic.Bool, len(urls)), keys: keys, rate: rate, hot: sku(0),
	}
	return l
}

// run sends requests until ctx ends. It returns once every answer has arrived.
func (l *load) run(ctx context.Context, seed uint64) {
	const workers = 48
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(w)))
			zipf := rand.NewZipf(rng, 1.5, 6, uint64(l.keys-1))
			every := time.Second * workers / time.Duration(l.rate)
			tick := time.NewTicker(every)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				node, key := l.pick(rng), sku(int(zipf.Uint64()))
				if node < 0 {
					continue
				}
				began := time.Now()
				source, stale, _, err := l.get(node, "product", key)
				if ctx.Err() == nil && l.up[node].Load() { // failed requests to a killed node are expected
					l.note(key, source, stale, err, time.Since(began))
				}
				_, _, _, _ = l.get(node, "naive", key)
			}
		})
	}
	wg.Wait()
}

func (l *load) pick(rng *rand.Rand) int {
	for range 16 {
		if n := rng.IntN(len(l.urls)); l.up[n].Load() {
			return n
		}
	}
	return -1
}

// get requests one key from one node.
func (l *load) get(node int, path, key string) (source string, stale bool, body []byte, err error) {
	resp, err := l.client.Get(l.urls[node] + "/" + path + "/" + key)
	if err != nil {
		return "", false, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return resp.Header.Get("X-Source"), resp.Header.Get("X-Stale") != "", body, err
}

func (l *load) note(key, source string, stale bool, err error, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := &l.now
	n.requests++
	switch source {
	case "near":
		n.near++
	case "owned":
		n.owned++
	case "fill":
		n.fill++
	}
	if stale {
		n.stale++
	}
	if err != nil {
		n.errors++
	}
	if key == l.hot {
		n.hot++
		if source == "fill" {
			n.hotWaited++
		}
	}
	n.took = append(n.took, took)
}

// take returns what was observed since the previous call.
func (l *load) take() window {
	l.mu.Lock()
	defer l.mu.Unlock()
	w, t := l.now, &l.total
	t.requests, t.near, t.owned, t.fill = t.requests+w.requests, t.near+w.near, t.owned+w.owned, t.fill+w.fill
	t.stale, t.errors, t.hot, t.hotWaited = t.stale+w.stale, t.errors+w.errors, t.hot+w.hot, t.hotWaited+w.hotWaited
	l.now = window{}
	return w
}

// sum returns the total of all windows up to the last take.
func (l *load) sum() window {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// quantile returns the q-quantile of the latencies.
func (w *window) quantile(q float64) time.Duration {
	if len(w.took) == 0 {
		return 0
	}
	slices.Sort(w.took)
	return w.took[int(q*float64(len(w.took)-1))]
}
