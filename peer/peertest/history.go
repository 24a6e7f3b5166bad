package peertest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/weircache/weir/tier"
)

// A Value is what the simulated origin returns. It identifies its load.
type Value struct {
	Key     string
	Version uint64 // the origin's, when it was read
	Load    uint64 // stamp of the start of the load
	At      int64  // time of the start of the load, in unix nanoseconds
	// TTL is the TTL that the loader gave the value; 0: the contract's.
	TTL time.Duration
}

// Outcome is how a load ended.
type Outcome uint8

// The outcomes.
const (
	Running Outcome = iota
	Loaded
	Missing // tier.ErrNotFound
	Failed
)

// Load is one run of the loader.
type Load struct {
	Key, Node        string
	Incarnation      int    // the number of the node's start
	Began, Ended     uint64 // stamps; Ended is 0 while the load runs
	BeganAt, EndedAt time.Time
	Until            time.Time // the deadline of the load's context, zero: no deadline
	From             uint64    // of a load that read another key first: its stamp at that time
	Version          uint64
	Outcome          Outcome
}

// Read is one Get or Read of a client.
type Read struct {
	Key, Node    string
	Began, Ended uint64
	BeganAt      time.Time
	EndedAt      time.Time
	Deadline     time.Time
	Stopped      time.Duration // how long its node's process was stopped meanwhile, so that nothing could end
	MaxAge       time.Duration
	After        *Invalidation // the invalidation whose token it carries, nil: none
	Plain        bool          // a Get: it reports neither source nor age
	Leaves       bool          // its caller cancels it at the deadline
	Nested       bool          // of a loader: it may end after its deadline, when its load has a permit again
	Asked        []Turn
	Value        Value
	Age          time.Duration
	Source       tier.Source
	Err          error
}

// Turn is the requests of a read to one member, until the member says that it does not own the key or the read turns to
// another member.
type Turn struct {
	Member   string
	Requests int
	Moved    bool // the member said that it does not own the key
}

// missing reports whether the answer was that the key has no value.
func (r *Read) missing() bool { return errors.Is(r.Err, tier.ErrNotFound) }

// after describes the read's token.
func (r *Read) after() string {
	if r.After == nil {
		return ""
	}
	return fmt.Sprintf(", after invalidation %d", r.After.Began)
}

// Invalidation is one write at the origin followed by an Apply of what it changed.
type Invalidation struct {
	Change           tier.Change
	Node             string
	Began, Ended     uint64 // of Invalidate; Ended is 0 while it runs
	BeganAt, EndedAt time.Time
	Told             []string // the members in the sender's view when it began
	Whole            bool     // when it ended, the sender's view contained every node that was up
	Err              error
	Token            tier.Token // what Apply returned; usable once Ended is not 0
}

// Outside is the Node of an invalidation that a process outside the cluster started. The nodes learn of it only by its
// token.
const Outside = ""

// Covers reports whether the invalidation covers key, which has the tag TagOf(key).
func (i *Invalidation) Covers(key string) bool {
	return i.Change.All || slices.Contains(i.Change.Keys, key) || slices.Contains(i.Change.Tags, TagOf(key))
}

// TagOf returns the tag that the simulated origin gives to a key's value. There are five, and one more for the keys that
// are never invalidated.
func TagOf(key string) string {
	switch {
	case key == "":
		return "t"
	case key[0] == 'h':
		return "held"
	}
	return fmt.Sprintf("t%d", key[len(key)-1]%5)
}

// A History records what clients, loaders and invalidations saw, in the order of stamps: if one thing ended before another
// began, its stamp is lower. It is safe for concurrent use.
type History struct {
	mu            sync.Mutex // guards the rest
	stamp         uint64
	loads         []*Load
	reads         []*Read
	invalidations []*Invalidation
	forwards      []*Read // requests to other members that no client's read caused
	running       int     // loads
	peak          int
	starts        map[start]uint64       // stamps
	ends          map[string][]uint64    // by node: stamps
	jumps         map[string][]time.Time // by node: times at which its clock was set ahead
	notes         []note
	calms         []calm
	moves         []calm // in which nodes leave and start
}

// start is one start of a node.
type start struct {
	node        string
	incarnation int
}

// note is an event of the cluster, for readers of the history.
type note struct {
	stamp uint64
	text  string
}

// calm is a time without faults that begins long enough after the last fault for all its effects to be over.
type calm struct{ from, to time.Time }

func (h *History) next() uint64 { h.stamp++; return h.stamp }

// Note records an event of the cluster, such as a fault.
func (h *History) Note(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.notes = append(h.notes, note{h.next(), fmt.Sprintf(format, args...)})
}

// Started records that a node starts. Each start of a node has its own incarnation.
func (h *History) Started(node string, incarnation int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.starts == nil {
		h.starts = make(map[start]uint64)
	}
	h.starts[start{node, incarnation}] = h.next()
	h.notes = append(h.notes, note{h.stamp, fmt.Sprintf("%s.%d starts", node, incarnation)})
}

// Gone records that a node has ended. It may or may not start again.
func (h *History) Gone(node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ends == nil {
		h.ends = make(map[string][]uint64)
	}
	h.ends[node] = append(h.ends[node], h.next())
}

// Stamp returns the stamp of this moment. Whatever begins later has a higher one.
func (h *History) Stamp() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.next()
}

// Reads returns the reads that began between two stamps and have ended.
func (h *History) Reads(from, to uint64) (out []*Read) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.reads {
		if r.Began > from && r.Began < to {
			out = append(out, r)
		}
	}
	return out
}

// Peaks returns the maximum number of concurrent loads at the origin, by node.
func (h *History) Peaks() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make(map[string]int)
	for _, at := range h.loads {
		n := 0
		for _, o := range h.loads {
			if o.Node == at.Node && o.Began <= at.Began && (o.Ended == 0 || o.Ended > at.Began) {
				n++
			}
		}
		out[at.Node] = max(out[at.Node], n)
	}
	return out
}

// jumped records that a node's clock was set ahead.
func (h *History) jumped(node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.jumps == nil {
		h.jumps = make(map[string][]time.Time)
	}
	h.jumps[node] = append(h.jumps[node], time.Now())
}

// BeginCalm marks the start of a time without faults, which EndCalm ends. Events that begin and end in between are checked
// against the stricter rules for calm times.
func (h *History) BeginCalm() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calms = append(h.calms, calm{from: time.Now()})
}

// EndCalm ends the calm time that BeginCalm began.
func (h *History) EndCalm() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calms[len(h.calms)-1].to = time.Now()
}

// beginLoad records that l begins. l has Key, Node, Incarnation and Until set.
func (h *History) beginLoad(l *Load, version func() uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l.Began, l.BeganAt, l.Version = h.next(), time.Now(), version()
	h.loads = append(h.loads, l)
	h.running++
	h.peak = max(h.peak, h.running)
}

// BeginPut records a Put, which counts as an instantaneous load: its value is as young as the write.
func (h *History) BeginPut(key string, version func() uint64) *Load {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := &Load{Key: key, Node: "put", Began: h.next(), BeganAt: time.Now(), Version: version(), Outcome: Loaded}
	l.Ended, l.EndedAt = h.next(), l.BeganAt
	return l
}

func (h *History) endLoad(l *Load, outcome Outcome) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l.Ended, l.EndedAt, l.Outcome = h.next(), time.Now(), outcome
	h.running--
}

// BeginRead records that r begins. r has Key, Node, MaxAge and After set.
func (h *History) BeginRead(r *Read) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r.Began, r.BeganAt = h.next(), time.Now()
}

// EndRead records that r, with its results filled in, has ended.
func (h *History) EndRead(r *Read) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r.Ended, r.EndedAt = h.next(), time.Now()
	h.reads = append(h.reads, r)
}

// asked records a request that node sent to another member because of r; r is nil if no client's read caused it.
func (h *History) asked(r *Read, node, member, key string) {
	if r != nil { // the read runs in this goroutine
		if n := len(r.Asked); n == 0 || r.Asked[n-1].Moved || r.Asked[n-1].Member != member {
			r.Asked = append(r.Asked, Turn{Member: member})
		}
		r.Asked[len(r.Asked)-1].Requests++
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forwards = append(h.forwards, &Read{Key: key, Node: node, Began: h.next()})
}

// BeginInvalidation records that a node starts an invalidation; told are the members in its view.
func (h *History) BeginInvalidation(change tier.Change, node string, told []string) *Invalidation {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := &Invalidation{Change: change, Node: node, Began: h.next(), BeganAt: time.Now(), Told: told}
	h.invalidations = append(h.invalidations, i)
	return i
}

// Tell records the members in the view of an invalidation's sender, if they were unknown when it began.
func (h *History) Tell(i *Invalidation, told []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i.Told = told
}

// EndInvalidation records how an invalidation ended. whole says that from its beginning to its end the sender's view
// contained every node that was up.
func (h *History) EndInvalidation(i *Invalidation, token tier.Token, whole bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i.Ended, i.EndedAt, i.Whole, i.Err, i.Token = h.next(), time.Now(), whole, err, token
}

// Tokens returns the last few invalidations of a key that have ended and whose tokens clients may have, newest first.
func (h *History) Tokens(key string) (out []*Invalidation) {
	const most, back = 4, 300
	h.mu.Lock()
	defer h.mu.Unlock()
	for n := len(h.invalidations) - 1; n >= max(0, len(h.invalidations)-back) && len(out) < most; n-- {
		if i := h.invalidations[n]; i.Ended != 0 && i.Token != (tier.Token{}) && i.Covers(key) {
			out = append(out, i)
		}
	}
	return out
}

// Digest returns a number that stands for everything in the history, in order. Two runs with the same number were very
// likely identical.
func (h *History) Digest() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := xxhash.New()
	add := func(format string, args ...any) { _, _ = fmt.Fprintf(d, format+"\n", args...) } // writing to a hash never fails
	for _, l := range h.loads {
		add("load %q %s.%d %d %d %d %d %d %d", l.Key, l.Node, l.Incarnation, l.Began, l.Ended, l.BeganAt.UnixNano(), l.EndedAt.UnixNano(), l.Version, l.Outcome)
	}
	for _, r := range h.reads {
		add("read %q %s %d %d %d %d %d %t %+v %+v %d %s %v", r.Key, r.Node, r.Began, r.Ended, r.BeganAt.UnixNano(), r.EndedAt.UnixNano(), r.MaxAge, r.Plain, r.Asked, r.Value, r.Age, r.Source, r.Err)
	}
	for _, i := range h.invalidations {
		add("invalidation %+v %s %d %d %d %d %q %t %v", i.Change, i.Node, i.Began, i.Ended, i.BeganAt.UnixNano(), i.EndedAt.UnixNano(), i.Told, i.Whole, i.Err)
	}
	for _, f := range h.forwards {
		add("forward %q %s %d", f.Key, f.Node, f.Began)
	}
	for _, n := range h.notes {
		add("note %d %s", n.stamp, n.text)
	}
	add("%d at once", h.peak)
	return d.Sum64()
}

// Figures are the statistics of a history.
type Figures struct {
	Loads, Reads, Failed, Invalidations, Confirmed, Whole int
	Peak                                                  int           // concurrent loads
	WithToken                                             int           // reads
	Oldest                                                time.Duration // the greatest age of a value that was read, when the read began
	Latest                                                time.Duration // the most that a read exceeded its deadline
}

// Add adds another history's figures.
func (f *Figures) Add(o Figures) {
	f.Loads += o.Loads
	f.Reads += o.Reads
	f.Failed += o.Failed
	f.Invalidations += o.Invalidations
	f.Confirmed += o.Confirmed
	f.Whole += o.Whole
	f.Peak = max(f.Peak, o.Peak)
	f.WithToken += o.WithToken
	f.Oldest, f.Latest = max(f.Oldest, o.Oldest), max(f.Latest, o.Latest)
}

// Figures computes the statistics of what was recorded.
func (h *History) Figures() Figures {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := Figures{Loads: len(h.loads), Reads: len(h.reads), Invalidations: len(h.invalidations), Peak: h.peak}
	for _, r := range h.reads {
		if r.Err != nil && !r.missing() {
			f.Failed++
		}
		if r.After != nil {
			f.WithToken++
		}
		if r.Err == nil {
			f.Oldest = max(f.Oldest, r.BeganAt.Sub(time.Unix(0, r.Value.At)))
		}
		f.Latest = max(f.Latest, r.EndedAt.Sub(r.Deadline)-r.Stopped)
	}
	for _, i := range h.invalidations {
		if i.Ended != 0 && i.Err == nil {
			f.Confirmed++
			if i.Whole {
				f.Whole++
			}
		}
	}
	return f
}

// tell returns the part of the history that shows a violation: what happened to key and to the cluster between two stamps,
// with only those reads that show accepts.
func (h *History) tell(key string, from, to uint64, show func(*Read) bool) string {
	var lines []note
	add := func(at uint64, format string, args ...any) {
		if at >= from && at <= to {
			lines = append(lines, note{at, fmt.Sprintf("%8d  ", at) + fmt.Sprintf(format, args...)})
		}
	}
	for _, l := range h.loads {
		if l.Key == key {
			add(l.Began, "%s.%d loads, version %d", l.Node, l.Incarnation, l.Version)
			add(l.Ended, "%s.%d ends load %d: %s", l.Node, l.Incarnation, l.Began, [...]string{"", "loaded", "missing", "failed"}[l.Outcome])
		}
	}
	for _, i := range h.invalidations {
		if i.Covers(key) {
			add(i.Began, "%s invalidates keys %q, tags %q, all %t, and sees %s", i.Node, i.Change.Keys, i.Change.Tags, i.Change.All, strings.Join(i.Told, " "))
			add(i.Ended, "%s ends invalidation %d: everybody in view %t, %v", i.Node, i.Began, i.Whole, i.Err)
		}
	}
	for _, r := range h.reads {
		if r.Key == key && show(r) {
			add(r.Began, "%s reads, MaxAge %v%s", r.Node, r.MaxAge, r.after())
			add(r.Ended, "%s ends read %d: load %d, version %d, from %s, aged %v, asked %v: %v", r.Node, r.Began, r.Value.Load, r.Value.Version, r.Source, r.Age, r.Asked, r.Err)
		}
	}
	for _, n := range h.notes {
		add(n.stamp, "-- %s", n.text)
	}
	slices.SortFunc(lines, func(a, b note) int { return cmp.Compare(a.stamp, b.stamp) })
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l.text)
		b.WriteByte('\n')
	}
	return b.String()
}
