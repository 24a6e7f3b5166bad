package roster

import (
	"context"
	"encoding/binary"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/weircache/weir/ring"
)

// A lost member keeps its share of the caps: behind a partition it is alive and still loads, by the divisor that it knew.
// But a process that crashed and restarts under another name would take a part of every cap with it for good. Time alone
// proves nothing. So the share moves only on evidence that the process has ended, or that its node is closed, which takes
// its share away (Node.Close):
//
//	state   event                                                                       next
//	live    its address refuses a connection, or another member answers there           live, with evidence
//	live    it answers a gossip probe, or gossip has another message from it            live, without evidence
//	live    gossip says that it is dead                                                 lost, or ended if there is evidence
//	lost    its address refuses a connection, or another member answers there,
//	        or gossip has another member at its address                                 ended
//	lost    another member says that this incarnation has ended                         ended
//	lost    Config.GiveUp has passed since it was lost, if that is set                  forgotten
//	lost    it is known by name only, from a member of an earlier version, and no
//	        member has listed it for listedFor                                          forgotten
//	ended   the longest load and endedGrace have passed since                           forgotten, for good
//	any     gossip says that it, or a later incarnation of its name, is alive           live
//
// Gossip knows nothing of lost and ended members; they count in Divisor until they are forgotten. Each member acts on its
// own evidence or on that of others, which travels with the exchanges of states. A member that has not heard of the
// evidence divides by more, which only makes its share smaller. So a partitioned member needs no evidence of anything: its
// side divides by as many as before.
//
// A machine without power refuses nothing, and neither does an address that no machine has any more. Such a member counts
// until its address answers again or belongs to another member, or for Config.GiveUp.
//
// A refusal proves that nothing listens at the address, as far as this node can see. A firewall that answers on behalf of a
// living member, as REJECT rules do, therefore makes that member look ended. A member that is alive contradicts: it counts
// again at once, and the log says so.
const (
	// endedGrace is how much longer than its longest load an ended member counts: the origin may notice late that nobody
	// waits.
	endedGrace = 10 * time.Second
	// proofEvery is how often this node checks whether the addresses of lost members refuse connections, proofTimeout how
	// long one check waits, and proofTogether how many run at once.
	proofEvery    = 5 * time.Second
	proofTimeout  = time.Second
	proofTogether = 8
	// listedFor is how long a member counts that is known by name only and that no member lists any more: several exchanges
	// of states.
	listedFor = 2 * time.Minute
	// maxEnded bounds the incarnations remembered as ended. The memory keeps a member that has not heard of it from
	// bringing them back.
	maxEnded = 512
	// tellEndedFor is how long others are told of an ended incarnation after it was forgotten here, or last listed as lost
	// by another member. maxTold bounds how many they are told of.
	tellEndedFor = 5 * time.Minute
	maxTold      = 64
)

// An endedStart is an incarnation that no longer counts.
type endedStart struct {
	startID
	at    time.Time // when it is known to have ended
	asked time.Time // when it was forgotten, or another member last listed it as lost
}

// startOf returns which start of its name a member is.
func startOf(m ring.Member) startID { return startID{m.Name, m.Incarnation} }

// proven records evidence that an incarnation ended no later than when.
func (t *table) proven(at ring.Member, when time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.prove(at, when)
}

// prove records evidence, from here or from another member, that an incarnation ended no later than when. at.Addr is where
// the evidence was found; "" means that another member reports it. The caller holds mu.
func (t *table) prove(at ring.Member, when time.Time) {
	if l, ok := t.vanished[startOf(at)]; ok && l.isAt(at.Addr) {
		if l.ended.IsZero() {
			l.ended = when
			t.vanished[startOf(at)] = l
			t.say(slog.LevelInfo, "a lost member has ended: it counts in the division of caps until its loads must have ended", "member", at.Name, "address", l.addr)
			t.signal()
		}
		return
	}
	id := Identity{Name: at.Name, Incarnation: at.Incarnation}
	if rec := t.records[id.GossipName()]; rec != nil && rec.refused == "" && at.Name != t.self.Name && (at.Addr == "" || at.Addr == rec.addr) && rec.ended.IsZero() {
		rec.ended = when
	}
}

// isAt reports whether the lost member has this address; "" stands for any.
func (l lost) isAt(addr string) bool { return !l.bare() && (addr == "" || addr == l.addr) }

// bare reports whether the member is known by name only.
func (l lost) bare() bool { return l.addr == "" }

// forgets reports whether a lost member no longer counts, why, and when to look again, where 0 means when there is news of
// it. longest is how long a load may take.
func (l lost) forgets(now time.Time, longest, giveUp time.Duration) (why string, again time.Duration) {
	due := func(at time.Time, text string) {
		if left := at.Sub(now); left > 0 {
			again = soonest(again, left)
		} else if why == "" {
			why = text
		}
	}
	if !l.ended.IsZero() {
		due(l.ended.Add(longest+endedGrace), "its process has ended, and so have its loads")
	}
	if giveUp > 0 {
		due(l.at.Add(giveUp), "it has been unreachable for longer than Config.GiveUp")
	}
	if l.bare() {
		due(l.listed.Add(listedFor), "no member lists it")
	}
	return why, again
}

// forget forgets the lost members that no longer count, and returns when to look again. The caller holds mu.
func (t *table) forget(now time.Time, longest time.Duration) (again time.Duration) {
	for at, l := range t.vanished {
		why, wait := l.forgets(now, longest, t.giveUp)
		if why == "" {
			again = soonest(again, wait)
			continue
		}
		delete(t.vanished, at)
		if !l.ended.IsZero() {
			if len(t.ended) == maxEnded {
				t.ended = slices.Delete(t.ended, 0, 1)
			}
			t.ended = append(t.ended, endedStart{startID: at, at: l.ended, asked: now})
		}
		t.say(slog.LevelWarn, "a lost member is forgotten: its share of the caps goes to the others", "member", at.name, "address", l.addr, "reason", why)
	}
	return again
}

// hasEnded returns the record of an ended incarnation, or nil if there is none. The caller holds mu.
func (t *table) hasEnded(start startID) *endedStart {
	for i := range t.ended {
		if e := &t.ended[i]; e.startID == start {
			return e
		}
	}
	return nil
}

// revived removes an incarnation from the ended ones, because it is alive. The caller holds mu.
func (t *table) revived(id *Identity, addr string) {
	start := startID{id.Name, id.Incarnation}
	l, lost := t.vanished[start]
	was := lost && !l.ended.IsZero()
	t.ended = slices.DeleteFunc(t.ended, func(e endedStart) bool {
		this := e.startID == start
		was = was || this
		return this
	})
	if was {
		t.say(slog.LevelError, "a member is alive whose address had refused connections: the origin may have had more loads than its cap; look for a firewall that rejects", "member", id.Name, "address", addr)
	}
}

// unproven lists the lost members that may live: nothing proves that they have ended.
func (t *table) unproven() []ring.Member {
	var out []ring.Member
	for at, l := range t.vanished {
		if l.ended.IsZero() && !l.bare() {
			out = append(out, ring.Member{Name: at.name, Addr: l.addr, Incarnation: at.incarnation})
		}
	}
	return out
}

// appendLost appends what is known of the lost members and of those that have ended recently. Each has a name and an
// address as texts, the incarnation, how many seconds ago it was lost, and how many seconds ago it ended plus one, or 0 if
// that is not known. The caller holds mu.
func (t *table) appendLost(buf []byte, now time.Time) []byte {
	seconds := func(since time.Time) uint32 { return uint32(max(now.Sub(since), 0) / time.Second) }
	one := func(m ring.Member, at, ended time.Time) {
		buf = append(append(buf, byte(len(m.Name))), m.Name...)
		buf = append(append(buf, byte(len(m.Addr))), m.Addr...)
		buf = binary.BigEndian.AppendUint64(buf, m.Incarnation)
		buf = binary.BigEndian.AppendUint32(buf, seconds(at))
		if ended.IsZero() {
			buf = binary.BigEndian.AppendUint32(buf, 0)
		} else {
			buf = binary.BigEndian.AppendUint32(buf, seconds(ended)+1)
		}
	}
	for at, l := range t.vanished {
		if !l.bare() {
			one(ring.Member{Name: at.name, Addr: l.addr, Incarnation: at.incarnation}, l.at, l.ended)
		}
	}
	told := 0
	for _, e := range slices.Backward(t.ended) {
		if now.Sub(e.asked) < tellEndedFor && told < maxTold {
			told++
			one(ring.Member{Name: e.name, Incarnation: e.incarnation}, e.at, e.at)
		}
	}
	return buf
}

// cutLost reads one entry that appendLost has written, and returns the rest.
func cutLost(buf []byte, now time.Time) (m ring.Member, l lost, rest []byte, err error) {
	if m.Name, buf, err = cutText(buf, MaxName); err != nil {
		return m, l, nil, err
	}
	if len(buf) < 1 || len(buf) < 1+int(buf[0])+16 {
		return m, l, nil, errMeta
	}
	n := 1 + int(buf[0])
	m.Addr = string(buf[1:n])
	m.Incarnation = binary.BigEndian.Uint64(buf[n:])
	ago := func(seconds uint32) time.Time { return now.Add(-time.Duration(seconds) * time.Second) }
	l = lost{addr: m.Addr, at: ago(binary.BigEndian.Uint32(buf[n+8:]))}
	if s := binary.BigEndian.Uint32(buf[n+12:]); s > 0 {
		l.ended = ago(s - 1)
	}
	return m, l, buf[n+16:], nil
}

// mergeLost merges what another member knows of lost members. names are the ones that it counts; if join is set, they are
// to count here as well. The caller holds mu.
func (t *table) mergeLost(names []string, buf []byte, join bool, now time.Time) {
	live := make(map[string]uint64, len(t.records)) // the latest incarnation
	for _, rec := range t.records {
		live[rec.id.Name] = max(live[rec.id.Name], rec.id.Incarnation)
	}
	take := func(at startID, l lost) {
		if newest, ok := live[at.name]; join && (!ok || at.incarnation > newest) && len(t.vanished) < len(t.records)+t.peak {
			t.vanished[at] = l
		}
	}
	detailed := make(map[string]bool)
	for len(buf) > 0 {
		m, l, rest, err := cutLost(buf, now)
		if err != nil {
			break
		}
		buf = rest
		detailed[m.Name] = true
		_, known := t.vanished[startOf(m)]
		_, bare := t.vanished[startID{name: m.Name}]
		gone := t.hasEnded(startOf(m))
		switch {
		case gone != nil && l.ended.IsZero():
			gone.asked = now
		case gone != nil:
		case bare && !known && l.addr != "":
			delete(t.vanished, startID{name: m.Name})
			t.vanished[startOf(m)] = l
		default:
			if !known && l.addr != "" {
				take(startOf(m), l)
			}
			if !l.ended.IsZero() {
				t.prove(ring.Member{Name: m.Name, Incarnation: m.Incarnation}, l.ended)
			}
		}
	}
	for _, name := range names {
		bare := startID{name: name}
		switch was, known := t.vanished[bare]; {
		case detailed[name]:
		case known && !join:
			was.listed = now
			t.vanished[bare] = was
		case !known && !t.isLost(name):
			take(bare, lost{at: now, listed: now})
		}
	}
}

// lookForProof asks of each lost member whether its process has ended.
func (r *Roster) lookForProof(starts []ring.Member) {
	var wg sync.WaitGroup
	places := make(chan struct{}, proofTogether)
	for _, m := range starts {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			ctx, cancel := context.WithTimeout(r.ctx, proofTimeout)
			defer cancel()
			if r.host.HasEnded(ctx, m) {
				r.Proven(m)
			}
		})
	}
	wg.Wait()
}
