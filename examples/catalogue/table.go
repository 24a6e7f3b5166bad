package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// table prints one line per second with the events of that second.
type table struct {
	d *demo

	mu    sync.Mutex // guards the rest, and standard output
	lines int        // since the heading was printed
	calls int64
	last  map[string]int64 // causes at the last line
	gone  map[string]int64 // causes of nodes that were killed
}

// run prints until ctx ends.
func (t *table) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			t.line()
		}
	}
}

func (t *table) line() {
	causes := t.d.c.causes()
	err := t.d.m.read()
	w := t.d.l.take()
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		fmt.Println("journal:", err)
		return
	}
	if t.lines%12 == 0 {
		fmt.Printf("  %7s %6s %6s %6s %6s %7s %7s %8s %5s  %s\n", "req/s", "near%", "owned%", "fill%", "stale%", "p50", "p99", "origin/s", "loads", "by cause")
	}
	t.lines++
	for cause, n := range t.gone {
		causes[cause] += n
	}
	all, _ := t.d.m.count('w', "")
	pct := func(n int64) float64 { return 100 * float64(n) / float64(max(w.requests, 1)) }
	fmt.Printf("  %7d %6.1f %6.1f %6.1f %6.1f %7s %7s %8d %5d  %s\n", w.requests, pct(w.near), pct(w.owned), pct(w.fill), pct(w.stale),
		ms(w.quantile(0.5)), ms(w.quantile(0.99)), all-t.calls, t.d.m.sample('w'), t.diff(causes))
	t.calls, t.last = all, causes
}

// diff describes how much the causes have grown since the last line. The caller holds mu.
func (t *table) diff(now map[string]int64) string {
	var parts []string
	for _, cause := range slices.SortedFunc(maps.Keys(now), cmp.Compare[string]) {
		if n := now[cause] - t.last[cause]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", cause, n))
		}
	}
	return strings.Join(parts, ", ")
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1fms", float64(d.Microseconds())/1000) }

// keepCauses saves a node's counts before the node is killed.
func (t *table) keepCauses(node int) {
	s, err := t.d.c.stats(node)
	if err != nil {
		return // its last second is missing from the causes, but not from the origin's calls
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone == nil {
		t.gone = make(map[string]int64)
	}
	for cause, n := range s.Namespaces["product"].LoadsBy {
		t.gone[cause] += n
	}
}

// scene announces a scene.
func (t *table) scene(title string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Printf("\n%s\n", title)
	t.lines = 0
}

// say prints a separate line.
func (t *table) say(s string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Println(s)
}
