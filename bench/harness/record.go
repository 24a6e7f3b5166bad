package harness

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// maxKinds is how many kinds of errors are counted separately, for each caller and in the sum.
const maxKinds = 16

// addKind adds n errors of the kind, or of "other" if there are too many kinds, because all texts differ.
func addKind(kinds map[string]int64, kind string, n int64) {
	if _, ok := kinds[kind]; !ok && len(kinds) >= maxKinds {
		kind = "other"
	}
	kinds[kind] += n
}

// Latencies are recorded in nanoseconds from 64 ns to a minute and a half, ages up to three hours. Larger values
// count as the maximum.
const (
	shortest = 64
	longest  = int64(90 * time.Second)
	oldest   = int64(3 * time.Hour)
)

// shards is the number of recorders that share the work, so that callers rarely wait for one another.
const shards = 8

// buckets is the approximate number of points of a timeline.
const buckets = 150

// a timeline records what happened when. It is safe for concurrent use.
type timeline struct {
	width  time.Duration
	points []point
	phases []phaseCount // none unless the scenario asks for them
}

// point counts calls by when they were due.
type point struct {
	offered, errors atomic.Int64
}

func newTimeline(d time.Duration) *timeline {
	width := 10 * time.Millisecond
	for _, w := range []time.Duration{20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000} {
		if d/width <= buckets {
			break
		}
		width = w * time.Millisecond
	}
	return &timeline{width: width, points: make([]point, (d+width-1)/width)}
}

// at returns the point of a time, or nil outside of the run.
func (t *timeline) at(now time.Duration) *point {
	if now < 0 || int(now/t.width) >= len(t.points) {
		return nil
	}
	return &t.points[now/t.width]
}

func (t *timeline) originCall(now time.Duration) {
	if p := t.phase(now); p != nil {
		p.calls.Add(1)
	}
}

// outcome is the result of a call.
type outcome struct {
	due, began, ended time.Duration // due: when it should have begun; equals began in a closed loop
	late              time.Duration // how long after due the harness sent it to its callers
	err               error
	lost              bool // the caller's own node went
	age               time.Duration
	read              bool
	further           bool // another key of a batch, whose first key has the latency
	stale, broken     time.Duration
	missed            time.Duration // stale by an invalidation that this node had missed
	rejoined          bool          // missed although the cut was over and the node saw all others when it was asked
	wrong             bool
}

// recorder records outcomes.
type recorder struct {
	line   *timeline
	stalls stalls
	shards [shards]shard
}

type shard struct {
	mu sync.Mutex // guards the rest
	tally
}

// tally is the set of counters. The tallies of all shards are added up at the end.
type tally struct {
	reads, writes, errors, lost, wrong int64
	stale, broken, missed, rejoined    int64
	maxStale, maxBroken, maxMissed     time.Duration
	latency, late, age                 *hdrhistogram.Histogram   // of answered reads, but late: of all reads
	points                             []*hdrhistogram.Histogram // latency of answered reads, by the timeline's points
	unanswered                         []int64                   // calls of reads that were not answered, by the same points
	failed                             int64                     // reads that were not answered
	kinds                              map[string]int64          // of errors
}

func newTally(points int) tally {
	h := func() *hdrhistogram.Histogram { return hdrhistogram.New(shortest, longest, 3) }
	t := tally{latency: h(), late: h(), age: hdrhistogram.New(shortest, oldest, 2),
		points: make([]*hdrhistogram.Histogram, points), unanswered: make([]int64, points), kinds: make(map[string]int64)}
	for i := range t.points { // all at once, so that the heap does not grow during the run
		t.points[i] = hdrhistogram.New(shortest, longest, 2)
	}
	return t
}

// unansweredCalls returns the number of calls of reads that were not answered.
func (t *tally) unansweredCalls() (n int64) {
	for _, k := range t.unanswered {
		n += k
	}
	return n
}

func newRecorder(line *timeline) *recorder {
	r := &recorder{line: line}
	for i := range r.shards {
		r.shards[i].tally = newTally(len(line.points))
	}
	return r
}

func record(h *hdrhistogram.Histogram, d time.Duration) {
	v := min(max(int64(d), shortest), h.HighestTrackableValue())
	_ = h.RecordValue(v) // it is within the bounds
}

// add records the outcome of a worker's call. Calls that were due before the run's start, in the warm-up, do not
// count.
func (r *recorder) add(worker int, o outcome) {
	p := r.line.at(o.due)
	if p == nil {
		return
	}
	p.offered.Add(1)
	if q := r.line.phase(o.due); q != nil {
		q.count(o)
	}
	if o.err != nil && !o.lost {
		p.errors.Add(1)
	}
	s := &r.shards[worker%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.read {
		s.reads++
	} else {
		s.writes++
	}
	switch {
	case o.lost:
		s.lost++
		return
	case o.err != nil:
		s.errors++
		addKind(s.kinds, kindOf(o.err), 1)
	}
	if o.wrong {
		s.wrong++
	}
	if o.stale > 0 {
		s.stale++
		s.maxStale = max(s.maxStale, o.stale)
	}
	if o.broken > 0 {
		s.broken++
		s.maxBroken = max(s.maxBroken, o.broken)
	}
	switch {
	case o.missed > 0 && o.rejoined:
		s.rejoined++
	case o.missed > 0:
		s.missed++
		s.maxMissed = max(s.maxMissed, o.missed)
	}
	if !o.read {
		return // only reads have a latency
	}
	if o.err == nil {
		record(s.age, o.age)
	} else {
		s.failed++
	}
	if o.further {
		return
	}
	if !r.stalls.has(o.due) {
		record(s.late, o.late)
	}
	i := int(o.due / r.line.width)
	if o.err != nil {
		s.unanswered[i]++
		return
	}
	record(s.latency, o.ended-o.due)
	record(s.points[i], o.ended-o.due)
}

// sum adds up the shards.
func (r *recorder) sum() tally {
	t := newTally(len(r.line.points))
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		t.reads += s.reads
		t.writes += s.writes
		t.errors += s.errors
		t.lost += s.lost
		t.wrong += s.wrong
		t.stale += s.stale
		t.broken += s.broken
		t.missed += s.missed
		t.failed += s.failed
		t.rejoined += s.rejoined
		t.maxStale = max(t.maxStale, s.maxStale)
		t.maxBroken = max(t.maxBroken, s.maxBroken)
		t.maxMissed = max(t.maxMissed, s.maxMissed)
		t.latency.Merge(s.latency)
		t.late.Merge(s.late)
		t.age.Merge(s.age)
		for k, h := range s.points {
			t.points[k].Merge(h)
			t.unanswered[k] += s.unanswered[k]
		}
		for k, n := range s.kinds {
			addKind(t.kinds, k, n)
		}
		s.mu.Unlock()
	}
	return t
}
