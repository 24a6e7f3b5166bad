package journal

import (
	"cmp"
	"sort"

	"github.com/weircache/weir/codec"
)

const (
	// defaultLogBytes is how much a log takes, in bytes: room for some 100,000 keys.
	defaultLogBytes = 8 << 20
	// loggedCost and nameCost are the bytes of an invalidation, and of each of its names, beside the names themselves.
	loggedCost = 112
	nameCost   = 16
	// maxTracks is how many incarnations' positions are kept.
	maxTracks = 1 << 11
	// maxBeyond is how many numbers beyond a gap are remembered for an incarnation. Numbers that do not fit are applied
	// again when the gap is closed.
	maxBeyond = 256
)

// Limits are the bounds of a journal; 0 stands for the default.
type Limits struct {
	Bytes  int64 // of the log: 8 MiB
	Tracks int   // incarnations whose positions are kept: 2,048
}

// logged is one invalidation that has been applied here.
type logged struct {
	mark    codec.Mark
	scope   codec.Scope
	version uint64 // the origin's, 0: unknown
	names   []string
	at      int64  // when the first members applied it, or later, ns on the cache's clock; below 0: before this cache started
	own     uint64 // how many of this cache's own had been applied by then, this one included
	written int64  // the log's written at that time, this one included
}

func (e *logged) cost() int64 {
	n := int64(loggedCost)
	for _, name := range e.names {
		n += nameCost + int64(len(name))
	}
	return n
}

// A log holds what this cache has applied: the invalidations themselves, for members that lack them, and a track for each
// incarnation. Its owner, a Journal, guards it with a lock; only lives may be used without it.
type log struct {
	self  uint64 // this cache's incarnation
	keep  int64  // ns: an invalidation applied longer ago covers nothing that the contract allows to be served
	slack int64  // ns: a margin for each age that another member reports, because its clock may have been set ahead
	limit Limits
	lives lives

	tracks  map[uint64]*track // of every incarnation heard of recently, and always of self
	retired map[uint64]retiredTrack
	listed  map[uint64]listed // by the incarnation that lists
	entries []logged          // in the order in which they were applied; the first is number dropped
	dropped uint64
	bytes   int64
	written int64  // bytes put into the log so far
	total   uint64 // invalidations and flushes applied here so far
}

// init makes l the log of a cache whose copies live for life, in ns, according to the contract.
func (l *log) init(self uint64, life, slack int64, limit Limits) {
	limit.Bytes, limit.Tracks = cmp.Or(limit.Bytes, defaultLogBytes), cmp.Or(limit.Tracks, maxTracks)
	l.self, l.keep, l.slack, l.limit = self, life+slack, slack, limit
	l.tracks, l.retired = map[uint64]*track{self: {}}, make(map[uint64]retiredTrack)
	l.lives.stored(life)
	l.lives.sent = life
}

// own returns this cache's own track.
func (l *log) own() *track { return l.tracks[l.self] }

// track returns an incarnation's track and creates it if there is none.
func (l *log) track(incarnation uint64) *track {
	t := l.tracks[incarnation]
	if t == nil {
		t = new(track)
		if r, retired := l.retired[incarnation]; retired {
			t.addAll(r.seq)
			t.aged, t.agedAt, t.last = r.seq, r.last, r.last
			delete(l.retired, incarnation)
		}
		l.tracks[incarnation] = t
	}
	return t
}

// add appends an applied invalidation to the log.
func (l *log) add(e logged) {
	if e.own = l.own().top; e.mark.Incarnation == l.self {
		e.own = e.mark.Seq
	}
	l.bytes += e.cost()
	l.written += e.cost()
	e.written = l.written
	l.entries = append(l.entries, e)
	l.total++
	l.trim(e.at)
}

// trim drops the entries that are too old or do not fit.
func (l *log) trim(now int64) {
	n := 0
	for ; n < len(l.entries); n++ {
		e := &l.entries[n]
		old := now-e.at > l.keep
		if !old && l.bytes <= l.limit.Bytes {
			break
		}
		if t := l.tracks[e.mark.Incarnation]; t == nil {
		} else if old {
			t.aged, t.agedAt = max(t.aged, e.mark.Seq), e.at
		} else {
			t.cut, t.cutAt = max(t.cut, e.mark.Seq), e.at
		}
		l.bytes -= e.cost()
		*e = logged{}
	}
	l.dropped += uint64(n)
	if l.entries = l.entries[n:]; len(l.entries) == 0 {
		l.entries = nil
	}
}

// sweep forgets what is too old.
func (l *log) sweep(now int64) {
	l.trim(now)
	for incarnation, t := range l.tracks {
		if !l.matters(incarnation, t, now) {
			delete(l.tracks, incarnation)
		}
	}
	for incarnation, list := range l.listed {
		if l.has(incarnation, list.seq+1) { // the number after the list came before the list
			delete(l.listed, incarnation)
		}
	}
	for incarnation, r := range l.retired {
		if now-r.last > l.remember() {
			delete(l.retired, incarnation)
		}
	}
}

// firstOwnAfter returns the index in entries of the first of this cache's own invalidations with a number above seq.
func (l *log) firstOwnAfter(seq uint64) int {
	return sort.Search(len(l.entries), func(i int) bool { return l.entries[i].own > seq })
}

// backlog returns how many bytes of the log are needed by a member that has confirmed this cache's own invalidations up
// to seq.
func (l *log) backlog(seq uint64) int64 {
	i := l.firstOwnAfter(seq)
	if i == len(l.entries) {
		return 0
	}
	return l.written - l.entries[i].written + l.entries[i].cost()
}

// since fills n with this cache's own invalidations after number seq, as many as one frame takes, and returns the
// numbers that n stands for. whole is false if the log no longer has all of them; then a base stands for the missing
// ones and for all before them.
func (l *log) since(seq uint64, n *codec.News, now int64) (sent span, whole bool) {
	n.Bases, n.Invalidations = n.Bases[:0], n.Invalidations[:0]
	defer l.addIdle(n, now)
	own := l.own()
	sent, whole = span{seq + 1, seq}, true
	if gone := max(own.cut, own.aged); gone > seq {
		n.Bases = append(n.Bases, codec.Base{Incarnation: l.self, Seq: gone, Flush: true})
		sent, whole = upTo(gone), false
	}
	f := frame{news: n}
	for i := l.firstOwnAfter(sent.last); i < len(l.entries); i++ {
		e := &l.entries[i]
		if e.mark.Incarnation != l.self {
			continue
		}
		if !f.add(e) {
			break
		}
		sent.last = e.mark.Seq
	}
	return sent, whole
}
