package journal

import (
	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
)

// Receive applies what another member has sent, and reports how much of it was new here. It does not keep n.
func (j *Journal) Receive(n *codec.News) (applied uint64) {
	applied, flushed := j.receive(n)
	if flushed && j.onFlush != nil {
		j.onFlush()
	}
	return applied
}

// receive is Receive. It also reports whether everything here had to be treated as invalidated.
func (j *Journal) receive(n *codec.News) (applied uint64, flushed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	l := &j.log
	before, now := l.total, j.now()
	when := l.appliedBy(n, now)
	for i := range n.Bases {
		b := &n.Bases[i]
		if b.Incarnation == l.self || l.hasAll(b.Incarnation, b.Seq) {
			continue
		}
		t, at := l.track(b.Incarnation), when.at(b.Incarnation)
		if t.appliedAt(at); b.Flush {
			flushed = true
			t.cut, t.cutAt = b.Seq, at
		} else {
			t.aged, t.agedAt = b.Seq, min(at, now-l.lives.own.Load()) // they were started before that
		}
		t.addAll(b.Seq)
	}
	if flushed {
		j.flush()
		l.total++
	}
	for i := range n.Invalidations {
		v := &n.Invalidations[i]
		if v.Mark.Incarnation == l.self || l.has(v.Mark.Incarnation, v.Mark.Seq) {
			continue
		}
		t, at := l.track(v.Mark.Incarnation), when.at(v.Mark.Incarnation)
		names := make([]string, len(v.Names))
		for k, name := range v.Names {
			names[k] = string(name)
		}
		flushed = j.apply(logged{mark: v.Mark, scope: v.Scope, version: v.Version, names: names, at: at}) || flushed
		t.appliedAt(at)
		t.add(v.Mark.Seq)
	}
	j.boundTracks(now)
	return l.total - before, flushed
}

// begin starts an invalidation of this cache's own. It keeps the names. The caller holds mu.
func (j *Journal) begin(scope codec.Scope, names []string, version uint64) codec.Mark {
	now, t := j.now(), j.log.own()
	mark := codec.Mark{Incarnation: j.log.self, Seq: t.top + 1}
	j.apply(logged{mark: mark, scope: scope, version: version, names: names, at: now})
	t.addAll(mark.Seq)
	t.last = now
	for _, m := range j.members {
		j.startPump(m)
	}
	return mark
}

// apply applies an invalidation to the copies and puts it into the log. It reports whether everything here had to be
// treated as invalidated, because what was invalidated is unknown. The caller holds mu.
func (j *Journal) apply(e logged) (flushed bool) {
	switch {
	case e.isList():
		j.log.list(&e)
	case e.isRetire():
		switch {
		case j.log.retire(e.mark, e.at):
		case j.IsOpening(): // a new cache has missed what came before it, and has next to nothing
			j.copies.FenceAll(false)
		default:
			j.flush()
			flushed = true
		}
	case e.scope == codec.ScopeKeys:
		for _, key := range e.names {
			j.copies.FenceKey(key, ring.Hash(key), e.mark, e.version)
		}
	case e.scope == codec.ScopeTags:
		j.copies.FenceTags(e.names)
	case e.scope == codec.ScopeAll:
		j.copies.FenceAll(e.mark.Incarnation == j.log.self)
	}
	j.log.add(e)
	return flushed
}

// flush treats everything here as invalidated, because no member can tell what was invalidated. The caller holds mu.
func (j *Journal) flush() {
	j.copies.FenceAll(false)
	j.counts.Flushed.Add(1)
}
