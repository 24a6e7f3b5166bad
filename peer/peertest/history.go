package peertest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weircache/weir/tier"
)

// A Value is what the simulated origin gives: it says which load it is from.
type Value struct {
	Key     string
	Version uint64 // the origin's, when it was read
	Load    uint64 // stamp of the start of the load
	At      int64  // time of the start of the load, in unix nanoseconds
}

// Load is one run of the loader.
type Load struct {
	Key, Node    string
	Incarnation  int    // which start of the node
	Began, Ended uint64 // stamps; Ended is 0 while it runs
	BeganAt      time.Time
	Version      uint64
}

// Read is one Get or Read of a client.
type Read struct {
	Key, Node    string
	Began, Ended uint64
	BeganAt      time.Time
	EndedAt      time.Time
	Deadline     time.Time
	MaxAge       time.Duration
	Value        Value
	Age          time.Duration
	Source       tier.Source
	Err          error
}

// Invalidation is one write at the origin followed by an Invalidate.
type Invalidation struct {
	Key, Node    string
	Began, Ended uint64 // of Invalidate; Ended is 0 while it runs
	EndedAt      time.Time
	Whole        bool // before and after, every node that was up was in the sender's view
	Err          error
}

// A History records what clients, loaders and invalidations saw, in the order of stamps: the
// stamp of what ended before another thing began is lower. It is safe for concurrent use.
type History struct {
	mu            sync.Mutex // guards the rest
	stamp         uint64
	loads         []*Load
	reads         []*Read
	invalidations []*Invalidation
	running       int // loads
	peak          int
	starts        map[start]uint64 // stamps
}

// start is one start of a node.
type start struct {
	node        string
	incarnation int
}

func (h *History) started(node string, incarnation int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.starts == nil {
		h.starts = make(map[start]uint64)
	}
	h.starts[start{node, incarnation}] = h.next()
}

func (h *History) next() uint64 { h.stamp++; return h.stamp }

func (h *History) beginLoad(key, node string, incarnation int, version func() uint64) *Load {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := &Load{Key: key, Node: node, Incarnation: incarnation, Began: h.next(), BeganAt: time.Now(), Version: version()}
	h.loads = append(h.loads, l)
	h.running++
	h.peak = max(h.peak, h.running)
	return l
}

func (h *History) endLoad(l *Load) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l.Ended = h.next()
	h.running--
}

func (h *History) beginRead(r *Read) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r.Began, r.BeganAt = h.next(), time.Now()
}

func (h *History) endRead(r *Read) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r.Ended, r.EndedAt = h.next(), time.Now()
	h.reads = append(h.reads, r)
}

func (h *History) beginInvalidation(key, node string) *Invalidation {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := &Invalidation{Key: key, Node: node, Began: h.next()}
	h.invalidations = append(h.invalidations, i)
	return i
}

func (h *History) endInvalidation(i *Invalidation, whole bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i.Ended, i.EndedAt, i.Whole, i.Err = h.next(), time.Now(), whole, err
}

// Figures are the sizes of a history.
type Figures struct {
	Loads, Reads, Failed, Invalidations, Confirmed int
	Peak                                           int // loads at once
}

// Figures counts what was recorded.
func (h *History) Figures() Figures {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := Figures{Loads: len(h.loads), Reads: len(h.reads), Invalidations: len(h.invalidations), Peak: h.peak}
	for _, r := range h.reads {
		if r.Err != nil {
			f.Failed++
		}
	}
	for _, i := range h.invalidations {
		if i.Ended != 0 && i.Err == nil {
			f.Confirmed++
		}
	}
	return f
}

// keyHistory tells all that concerns key between two stamps, in order.
func (h *History) keyHistory(key string, from, to uint64) string {
	type line struct {
		at   uint64
		text string
	}
	var lines []line
	add := func(at uint64, format string, args ...any) {
		if at >= from && at <= to {
			lines = append(lines, line{at, fmt.Sprintf("%8d  ", at) + fmt.Sprintf(format, args...)})
		}
	}
	for _, l := range h.loads {
		if l.Key == key {
			add(l.Began, "%s.%d loads version %d", l.Node, l.Incarnation, l.Version)
			add(l.Ended, "%s.%d has loaded (began %d)", l.Node, l.Incarnation, l.Began)
		}
	}
	for _, i := range h.invalidations {
		if i.Key == key {
			add(i.Began, "%s invalidates", i.Node)
			add(i.Ended, "%s has invalidated (began %d): whole view %t, %v", i.Node, i.Began, i.Whole, i.Err)
		}
	}
	for _, r := range h.reads {
		if r.Key == key {
			add(r.Ended, "%s has read (began %d) load %d, version %d, from %s, aged %v: %v", r.Node, r.Began, r.Value.Load, r.Value.Version, r.Source, r.Age, r.Err)
		}
	}
	slices.SortFunc(lines, func(a, b line) int { return int(int64(a.at) - int64(b.at)) })
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l.text)
		b.WriteByte('\n')
	}
	return b.String()
}
