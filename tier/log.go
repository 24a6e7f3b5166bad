package tier

import (
	"cmp"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/codec"
)

// What a member has applied, and what it can pass on
//
// Each cache instance has a random incarnation and numbers the invalidations that it starts. Every member keeps the
// invalidations that it has applied, its own and others', in a log. For each incarnation it keeps a track: the number
// up to which it has applied all of them, and the few numbers that it has applied beyond. Two members that compare
// their tracks know what each lacks and take it from the other's log. A flush makes good what no log holds any more: a
// member that lacks such an invalidation treats its whole cache as invalidated.
//
// Rule: a read that begins on a member after that member has applied an invalidation never returns a value that the
// invalidation covers and whose load began before the invalidation was started. Why it holds:
//
//   - A near copy, an entry of the owned tier, a value that a flight brings: the fence decides, because the copy's
//     stamp was taken before its load, or the request for it, began (internal/fence, tag.go).
//   - A value from another member: that member must have applied the invalidation before it looked for the value. So
//     each member keeps, for each other member, a watermark of what that member is known to have applied (known): the
//     fence clocks at a moment before an exchange of tracks in which it took everything that was here at that moment.
//     What it must be told beyond the watermark is its debt (internal/fence). One mark travels with the request. An
//     exchange comes first if there are more marks, if one can no longer be told, or if one is of the whole namespace.
//     If one is of a tag, the answer, which names its tags, is not used; an exchange follows, and the request is
//     repeated. A watermark holds for one incarnation: an answer of another incarnation is not used either.
//   - A mark that arrived with a request or a token is in no log, so known proves nothing about it. This node sends it
//     with each request for its key until the invalidation itself arrives here or the retention has passed. Until then
//     the rule covers it; afterwards the rule covers the reads that bring the mark again.
//
// So it does not matter how an invalidation arrived: directly, by relay, with a request, by replay or by flush. It
// raises the clocks, and from then on this node takes nothing from a member before that member has the invalidation as
// well. In particular, before a replay no data crosses from one side of a healed partition to the other, nor, on either
// side, from members that have not heard of the invalidation to members that have.
//
// Invalidate returns nil when all members of the view have applied the invalidation. A member that is not in this
// node's view may be in the view of a member that has applied it: that member names it and relays the invalidation to
// it. A member that nobody knows, or that has only just started, might still take a copy from a member that has not
// applied the invalidation, at a time when it should have been told itself. So two kinds of answers are neither kept in
// the near tier nor given to later callers: answers to a member that is not in the answerer's view, and answers to a
// new cache until it has had an exchange with every member.
//
// Memory is bounded: the log by bytes and by age, the tracks by count, the numbers beyond a gap by count. The track
// notes what the log had to drop early (cut); a member that lacks it has to flush. What was applied longer ago than any
// member's copies live (lives) no longer matters to anyone. Positions of caches that have gone are retired before there
// are too many (retire.go).
//
// The age of an invalidation counts from when the first members applied it. A member that passes one on also says how
// long the invalidation's incarnation has been idle, so all members forget it at about the same time. If each member
// counted from when it heard of the invalidation itself, a late member would tell it to members that had forgotten it,
// they would tell the next one, and it would circulate forever and cost fills.
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

// limits are the bounds of a log; tests make them small.
type limits struct {
	bytes  int64
	tracks int
}

// logged is one invalidation that has been applied here.
type logged struct {
	mark    codec.Mark
	scope   codec.Scope
	version uint64 // the origin's, 0: unknown
	names   []string
	at      int64  // when the first members applied it, or later, ns on the cache's clock; below 0: before this cache started
	own     uint64 // how many of this cache's own had been applied by then, this one included
	written int64  // the logbook's written at that time, this one included
}

func (e *logged) cost() int64 {
	n := int64(loggedCost)
	for _, name := range e.names {
		n += nameCost + int64(len(name))
	}
	return n
}

// track is how far this cache has applied the invalidations of one incarnation.
type track struct {
	top    uint64   // all numbers up to this one are applied
	beyond []uint64 // and these, in order
	// The log has dropped the numbers up to cut for lack of room, and those up to aged because of their age.
	cut, aged uint64
	cutAt     int64 // when the last one that was cut was applied
	agedAt    int64 // when the last one that aged was applied
	last      int64 // when the first members applied the last one, or later
}

func (t *track) has(seq uint64) bool {
	if seq <= t.top {
		return true
	}
	_, ok := slices.BinarySearch(t.beyond, seq)
	return ok
}

// applied reports whether the invalidation m itself, not just its mark for one key, and all before it of its
// incarnation are known to have been applied here.
func (l *logbook) applied(m codec.Mark) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hasAll(m.Incarnation, m.Seq)
}

// heard notes when the invalidation that is about to be noted was applied. On a new cache's clock that time may be
// below 0. Call heard before note and reach.
func (t *track) heard(at int64) {
	if at > t.last || t.most() == 0 {
		t.last = at
	}
}

// note notes that seq, which t does not have yet, is applied.
func (t *track) note(seq uint64) {
	if seq == t.top+1 {
		t.reach(seq)
	} else if i, _ := slices.BinarySearch(t.beyond, seq); len(t.beyond) < maxBeyond {
		t.beyond = slices.Insert(t.beyond, i, seq)
	}
}

// reach notes that all numbers up to seq are applied.
func (t *track) reach(seq uint64) {
	t.top = max(t.top, seq)
	n := 0
	for n < len(t.beyond) && t.beyond[n] <= t.top+1 {
		t.top = max(t.top, t.beyond[n])
		n++
	}
	t.beyond = slices.Delete(t.beyond, 0, n)
}

// most returns the highest number that is applied.
func (t *track) most() uint64 {
	if n := len(t.beyond); n > 0 {
		return t.beyond[n-1]
	}
	return t.top
}

// A logbook is a cache's log and tracks, and what the cache knows of the other members. Every invalidation, except a
// mark that a request carries, is applied with mu held, so a goroutine that holds mu never sees one half applied.
type logbook struct {
	self  uint64 // this cache's incarnation
	keep  int64  // ns: an invalidation applied longer ago covers nothing that the contract allows to be served
	slack int64  // ns: a margin for each age that another member reports, because its clock may have been set ahead
	limit limits
	lives lives

	// mu guards the rest, and orders invalidations. The locks of fences, stores, flights and asks may be taken with mu
	// held, never the other way round.
	mu      sync.Mutex
	tracks  map[uint64]*track // of every incarnation heard of recently, and always of self
	retired map[uint64]retiredTrack
	listed  map[uint64]listed // by the incarnation that lists
	entries []logged          // in the order in which they were applied; the first is number dropped
	dropped uint64
	bytes   int64
	written int64  // bytes put into the log so far
	total   uint64 // invalidations and flushes applied here so far
	mateBook
}

// newLogbook returns the logbook of a cache whose copies live for life, in ns, according to the contract.
func newLogbook(self uint64, life, slack int64, limit limits) *logbook {
	limit.bytes = cmp.Or(limit.bytes, defaultLogBytes)
	limit.tracks = cmp.Or(limit.tracks, maxTracks)
	l := &logbook{
		self: self, keep: life + slack, slack: slack, limit: limit,
		tracks: map[uint64]*track{self: {}}, retired: make(map[uint64]retiredTrack),
	}
	l.lives.stored(life)
	l.lives.told = life
	return l
}

// own returns this cache's own track. The caller holds mu.
func (l *logbook) own() *track { return l.tracks[l.self] }

// track returns an incarnation's track and creates it if there is none. The caller holds mu.
func (l *logbook) track(incarnation uint64) *track {
	t := l.tracks[incarnation]
	if t == nil {
		t = new(track)
		if r, retired := l.retired[incarnation]; retired {
			t.reach(r.seq)
			t.aged, t.agedAt, t.last = r.seq, r.last, r.last
			delete(l.retired, incarnation)
		}
		l.tracks[incarnation] = t
	}
	return t
}

// add appends an applied invalidation to the log. The caller holds mu.
func (l *logbook) add(e logged) {
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

// trim drops the entries that are too old or do not fit. The caller holds mu.
func (l *logbook) trim(now int64) {
	n := 0
	for ; n < len(l.entries); n++ {
		e := &l.entries[n]
		old := now-e.at > l.keep
		if !old && l.bytes <= l.limit.bytes {
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

// lives are the longest lives of copies, from the start of a load to hard expiry, in ns. What a member lacks matters as
// long as its own copies live. How long other members remember a position, and when an unreached member's copies are
// gone, depends on the longest life in the cluster. Loaders may give a value a longer life than the contract
// (Fill.SetTTL), so members tell one another theirs with each exchange, and have an exchange when their own grows.
type lives struct {
	own     atomic.Int64 // of anything that was stored here
	cluster atomic.Int64 // of anything that any member has told of, own included
	told    int64        // what own was when the members were last told; logbook.mu guards it
}

// raise makes v at least life.
func raise(v *atomic.Int64, life int64) {
	for {
		if old := v.Load(); life <= old || v.CompareAndSwap(old, life) {
			return
		}
	}
}

// stored notes that a copy with this life was stored here.
func (l *lives) stored(life int64) {
	raise(&l.own, life)
	raise(&l.cluster, life)
}

// heard notes how long another member's copies live, as that member has told.
func (l *lives) heard(life time.Duration) { raise(&l.cluster, int64(life)) }

// remember returns for how long, in ns, a position matters: until no member has a copy from before it was reached.
func (l *logbook) remember() int64 { return l.lives.cluster.Load() + l.slack }

// matters reports whether an incarnation's position is still sent and compared. One that is not is as good as forgotten,
// also before the next sweep. The caller holds mu.
func (l *logbook) matters(incarnation uint64, t *track, now int64) bool {
	return incarnation == l.self || now-t.last <= l.remember()
}

// sweep forgets what is too old. The caller holds mu.
func (l *logbook) sweep(now int64) {
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

// positions appends what this member has applied: a position, with its idle time, for every incarnation that tell can have
// a base or an invalidation of. The position of an incarnation of which only numbers beyond a gap are applied is 0. The
// caller holds mu.
func (l *logbook) positions(dst []codec.Position, now int64) []codec.Position {
	for incarnation, t := range l.tracks {
		if t.most() > 0 && len(dst) < codec.MaxPositions && l.matters(incarnation, t, now) {
			dst = append(dst, codec.Position{Incarnation: incarnation, Seq: t.top, Idle: time.Duration(now - t.last)})
		}
	}
	return dst
}

// appliedTimes are the times at which another member applied the invalidations that it sends.
type appliedTimes struct {
	now, most int64                    // when its message arrived, and the cap on ages, ns
	idle      map[uint64]time.Duration // by incarnation
}

// appliedBy reads these times from n, which arrived at now. The caller holds mu.
func (l *logbook) appliedBy(n *codec.News, now int64) appliedTimes {
	a := appliedTimes{now: now, most: 2 * l.remember()} // nobody needs an invalidation even half as old
	if len(n.Bases)+len(n.Invalidations) > 0 {
		a.idle = make(map[uint64]time.Duration, len(n.Positions))
		for _, p := range n.Positions {
			a.idle[p.Incarnation] = p.Idle
		}
	}
	return a
}

// at returns when an incarnation's last invalidation was applied. The result is late by as much as n took to arrive.
func (a appliedTimes) at(incarnation uint64) int64 {
	return a.now - min(int64(a.idle[incarnation]), a.most)
}

// leastIdle is the shortest idle time that is sent.
const leastIdle = time.Second

// addIdle adds a position, for its idle time, for each incarnation in n's bases and invalidations that has been idle
// for leastIdle or longer. It adds nothing if n has positions already. The caller holds mu.
func (l *logbook) addIdle(n *codec.News, now int64) {
	if len(n.Positions) > 0 {
		return
	}
	seen := make(map[uint64]bool)
	position := func(incarnation uint64) {
		t := l.tracks[incarnation]
		if t == nil || seen[incarnation] || len(n.Positions) == codec.MaxPositions {
			return
		}
		seen[incarnation] = true
		if idle := time.Duration(now - t.last); idle >= leastIdle {
			n.Positions = append(n.Positions, codec.Position{Incarnation: incarnation, Seq: t.top, Idle: idle})
		}
	}
	for i := range n.Bases {
		position(n.Bases[i].Incarnation)
	}
	for i := range n.Invalidations {
		position(n.Invalidations[i].Mark.Incarnation)
	}
}

// A lag is what another member lacks, while this cache sends it.
type lag struct {
	has  map[uint64]uint64 // what the member has, by incarnation
	life int64             // how long its copies live, ns
	base map[uint64]uint64 // the bases that it has been sent
	next uint64            // the number of the log's entry to look at next
}

func lagOf(n *codec.News) *lag {
	g := &lag{has: make(map[uint64]uint64, len(n.Positions)), life: int64(n.Life), base: make(map[uint64]uint64)}
	for _, p := range n.Positions {
		g.has[p.Incarnation] = p.Seq
	}
	return g
}

// tell fills n with as much of what g's member lacks as one frame takes. more means that there is more to send. The
// caller holds l.mu.
func (l *logbook) tell(g *lag, n *codec.News, now int64) (more bool) {
	n.Bases, n.Invalidations = n.Bases[:0], n.Invalidations[:0]
	defer l.addIdle(n, now)
	lacks := false
	for incarnation, t := range l.tracks {
		if !l.matters(incarnation, t, now) {
			continue // its idle time is not sent with the positions: the other member would count it as new
		}
		has := g.has[incarnation]
		lacks = lacks || t.most() > has
		gone := max(t.cut, t.aged)
		if gone <= max(has, g.base[incarnation]) {
			continue
		}
		life := g.life + l.slack // for as long as it may have copies from before
		flush := t.cut > has && now-t.cutAt <= max(l.keep, life) || t.aged > has && now-t.agedAt <= life
		n.Bases = append(n.Bases, codec.Base{Incarnation: incarnation, Seq: gone, Flush: flush})
		g.base[incarnation] = gone
	}
	if !lacks {
		return false
	}
	names, size, oldest := 0, 0, now-l.remember()
	g.next = max(g.next, l.dropped)
	for ; g.next < l.dropped+uint64(len(l.entries)); g.next++ {
		e := &l.entries[g.next-l.dropped]
		if e.at < oldest || e.mark.Seq <= g.has[e.mark.Incarnation] || e.mark.Seq <= g.base[e.mark.Incarnation] || l.settledBy(g, e.mark) {
			continue
		}
		bytes := int(e.cost()) - nameCost*len(e.names)
		if len(n.Invalidations) > 0 && (size+bytes > invalidateBatch || names+len(e.names) > codec.MaxKeysPerFrame || len(n.Invalidations) == codec.MaxKeysPerFrame) {
			return true
		}
		names, size = names+len(e.names), size+bytes
		n.Invalidations = append(n.Invalidations, e.wire())
	}
	return false
}

// after returns the index in entries of the first of this cache's own invalidations with a number above seq. The caller
// holds mu.
func (l *logbook) after(seq uint64) int {
	return sort.Search(len(l.entries), func(i int) bool { return l.entries[i].own > seq })
}

// backlog returns how many bytes of the log are needed by a member that has confirmed this cache's own invalidations up
// to seq. The caller holds mu.
func (l *logbook) backlog(seq uint64) int64 {
	i := l.after(seq)
	if i == len(l.entries) {
		return 0
	}
	return l.written - l.entries[i].written + l.entries[i].cost()
}

// since fills n with this cache's own invalidations after number seq, as many as one frame takes, and returns the
// numbers that n stands for. whole is false if the log no longer has all of them; then a base stands for the missing
// ones and for all before them. The caller holds mu.
func (l *logbook) since(seq uint64, n *codec.News, now int64) (sent span, whole bool) {
	n.Bases, n.Invalidations = n.Bases[:0], n.Invalidations[:0]
	defer l.addIdle(n, now)
	own := l.own()
	sent, whole = span{seq + 1, seq}, true
	if gone := max(own.cut, own.aged); gone > seq {
		n.Bases = append(n.Bases, codec.Base{Incarnation: l.self, Seq: gone, Flush: true})
		sent, whole = upTo(gone), false
	}
	names, size := 0, 0
	for i := l.after(sent.last); i < len(l.entries); i++ {
		e := &l.entries[i]
		if e.mark.Incarnation != l.self {
			continue
		}
		bytes := int(e.cost()) - nameCost*len(e.names)
		if len(n.Invalidations) > 0 && (size+bytes > invalidateBatch || names+len(e.names) > codec.MaxKeysPerFrame || len(n.Invalidations) == codec.MaxKeysPerFrame) {
			break
		}
		names, size = names+len(e.names), size+bytes
		n.Invalidations = append(n.Invalidations, e.wire())
		sent.last = e.mark.Seq
	}
	return sent, whole
}

// wire returns e as it crosses the wire; it shares e's names.
func (e *logged) wire() codec.Invalidation {
	v := codec.Invalidation{Mark: e.mark, Scope: e.scope, Version: e.version}
	if len(e.names) > 0 {
		v.Names = make([][]byte, len(e.names))
		for i, name := range e.names {
			v.Names[i] = bytesOf(name)
		}
	}
	return v
}
