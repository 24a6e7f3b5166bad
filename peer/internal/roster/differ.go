package roster

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/ring"
)

// For a second or so, it is normal that a member's view differs from this node's. If the views differ for long, the
// exchanges of states have not helped (see compare.go), and an operator has to know: there is an event, a metric and a
// sentence on the page. If most members differ, it is likely that they do not see this node, and it becomes unready.
//
//	event                                      what is recorded of the member
//	an answer with another view                the time, as the first unless there is one, and as the last
//	an answer with the same view               the record is dropped
//	the member leaves the view                 the record is dropped
//	no answer with another view for differFor  the record is dropped: it is not known whether the views differ
const (
	// differLong is how long a member must have had another view: several exchanges of states.
	differLong = 10 * time.Second
	// differFor is how long the last answer with another view counts.
	differFor = 30 * time.Second
)

// difference is when a member was first and last seen with another view.
type difference struct{ first, last time.Time }

// differences are the members with another view.
type differences struct {
	count atomic.Int64 // of seen: for a look without the lock

	mu            sync.Mutex // guards the rest
	seen          map[string]difference
	longDiffering []string // the members that have had another view for long, as of the last look; replaced, never changed
	mostDiffer    bool     // they are most of the other members
}

// note records the view that an answer shows. It reports whether this is the first answer with another view.
func (d *differences) note(member string, same bool, now time.Time) (first bool) {
	if same && d.count.Load() == 0 {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	defer func() { d.count.Store(int64(len(d.seen))) }()
	if same {
		delete(d.seen, member)
		return false
	}
	if d.seen == nil {
		d.seen = make(map[string]difference)
	}
	e, known := d.seen[member]
	if !known {
		e.first = now
	}
	e.last = now
	d.seen[member] = e
	return !known
}

// look reports which members have had a different view for a long time, whether that list has changed, and when to look again, where 0
// means at the next difference.
func (d *differences) look(view *ring.View, now time.Time) (long []string, news bool, again time.Duration) {
	if d.count.Load() == 0 && len(d.listed()) == 0 {
		return nil, false, 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, e := range d.seen {
		switch {
		case view.Index(name) < 0 || now.Sub(e.last) > differFor:
			delete(d.seen, name)
		case e.last.Sub(e.first) >= differLong:
			long = append(long, name)
			again = soonest(again, differLong)
		default:
			again = soonest(again, time.Second)
		}
	}
	d.count.Store(int64(len(d.seen)))
	slices.Sort(long)
	news = !slices.Equal(long, d.longDiffering)
	d.longDiffering, d.mostDiffer = long, 2*len(long) > view.Len()-1
	return long, news, again
}

// listed returns the members that have had another view for long.
func (d *differences) listed() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.longDiffering
}

// mostly returns the members that have had another view for long if they are most of the others, or else nil.
func (d *differences) mostly() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.mostDiffer {
		return nil
	}
	return d.longDiffering
}
