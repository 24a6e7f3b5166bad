package roster

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/weircache/weir/peer/internal/hearing"
	"github.com/weircache/weir/peer/internal/loglimit"
	"github.com/weircache/weir/ring"
)

const (
	// expectTime is how long Share counts a member that has announced that it joins and that gossip has not reported yet:
	// several times what gossip needs.
	expectTime = 10 * time.Second
	// maxExpected bounds the announced members that are remembered.
	maxExpected = 128
	// maxDeparted bounds the incarnations that are remembered because they have left gracefully.
	maxDeparted = 512
	// maxNotices bounds the log lines that wait to be written.
	maxNotices = 64
)

// A record is what is known of one start of a member that gossip names.
type record struct {
	id   Identity
	addr string
	standing
	refused string        // why it cannot be in the view; "": it can
	rtt     time.Duration // of gossip probes, smoothed; 0: unknown
}

// expected is a member that has announced that it joins.
type expected struct {
	incarnation uint64
	until       time.Time // how long it counts
}

// notice is a log line that is written once no lock is held.
type notice struct {
	level slog.Level
	text  string
	args  []any
}

// notices are log lines that wait. The table's lock guards them.
type notices []notice

// say adds a line.
func (n *notices) say(level slog.Level, text string, args ...any) {
	if len(*n) < maxNotices {
		*n = append(*n, notice{level, text, args})
	}
}

// take removes all lines and returns them.
func (n *notices) take() []notice {
	all := *n
	*n = nil
	return all
}

// table holds what gossip has reported about the members. memberlist calls its Notify methods, some of them under
// memberlist's lock, so these only record the report and signal. One goroutine of the node evaluates the result.
type table struct {
	self    Identity
	minimum int           // the lowest number that Share counts
	limit   int           // the largest number of members in a view
	changed chan struct{} // holds one token when there is something to evaluate
	// longest returns how long a load of this node may take; nil: loads take no time. It is called without mu held.
	longest func() time.Duration
	hearing *hearing.Monitor // of this node
	noise   loglimit.Limiter // limits the log of members kept out of the view to one line for each reason

	mu              sync.Mutex          // guards everything below
	leaving         bool                // this node is leaving
	records         map[string]*record  // live members by gossip name
	expected        map[string]expected // announced members by stable name
	reportedDoubles map[string]bool     // gossip names already reported as older doubles
	losses          losses
	flaps           flaps
	departed        []string // gossip names of incarnations that left gracefully, oldest first: they never come back
	mustContradict  bool     // others may believe that this node is gone: it has to contradict
	notices         notices
}

func newTable(self Identity, addr string, minimum, limit int) *table {
	t := &table{
		self:            self,
		minimum:         minimum,
		limit:           limit,
		changed:         make(chan struct{}, 1),
		hearing:         hearing.New(time.Now()),
		records:         map[string]*record{self.GossipName(): {id: self, addr: addr}},
		expected:        make(map[string]expected),
		reportedDoubles: make(map[string]bool),
	}
	t.losses = losses{log: &t.notices, lost: make(map[startID]lost)}
	t.flaps = flaps{log: &t.notices, of: make(map[string]flap)}
	return t
}

// signal wakes the goroutine that evaluates the roster.
func (t *table) signal() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// admissible returns why a member with this identity cannot be in the view, or "" if it can.
func (t *table) admissible(id *Identity, gossipName string) string {
	switch {
	case id.GossipName() != gossipName:
		return fmt.Sprintf("its meta says that it is %q", id.GossipName())
	case id.Cluster != t.self.Cluster:
		return fmt.Sprintf("its cluster is %q, this is %q", id.Cluster, t.self.Cluster)
	case id.Protocol != t.self.Protocol:
		return fmt.Sprintf("it speaks version %d of the protocol, this node speaks %d", id.Protocol, t.self.Protocol)
	case id.RingVersion != t.self.RingVersion:
		return fmt.Sprintf("its ring version is %d, this node's is %d", id.RingVersion, t.self.RingVersion)
	case id.Placement != t.self.Placement:
		return "its Config.Ring differs, so it places keys elsewhere"
	}
	return ""
}

// NotifyJoin records a member that has joined or come back.
func (t *table) NotifyJoin(n *memberlist.Node) { t.note(n) }

// NotifyUpdate records a member whose meta has changed.
func (t *table) NotifyUpdate(n *memberlist.Node) { t.note(n) }

func (t *table) note(n *memberlist.Node) {
	id, err := DecodeIdentity(n.Meta)
	rec := &record{id: id, addr: n.Address()}
	if err != nil {
		rec.refused = err.Error()
	} else {
		rec.refused = t.admissible(&id, n.Name)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.records[n.Name]
	if old != nil {
		rec.rtt, rec.standing = old.rtt, old.standing
		t.contradicted(old)
	}
	rec.standing = rec.heard(id.leaving)
	if rec.refused != "" && (old == nil || old.refused == "") && t.noise.Allow(rec.refused, time.Now()) {
		t.notices.say(slog.LevelError, "a member is kept out of the view", "member", n.Name, "address", rec.addr, "reason", rec.refused)
	}
	t.records[n.Name] = rec
	if rec.refused == "" {
		if old == nil && (t.losses.wasLost(&id) || t.restarted(&id)) {
			t.returned(id.Name, time.Now())
		}
		t.losses.revived(&id, rec.addr)
		t.losses.drop(&id)
		delete(t.expected, id.Name)
	}
	t.signal()
}

// returned records that a member is back that had not left. The caller holds mu.
func (t *table) returned(name string, now time.Time) {
	if name != t.self.Name {
		t.flaps.returned(name, now)
	}
}

// answered records that a member answers again that only this node, or this node first, had found silent.
func (t *table) answered(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.returned(name, time.Now())
	t.signal()
}

// proven records evidence that an incarnation ended no later than when.
func (t *table) proven(at ring.Member, when time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.prove(at, when)
}

// prove records evidence, from here or from another member, that an incarnation ended no later than when. at.Addr is where
// the evidence was found; "" means that another member reports it. The caller holds mu.
func (t *table) prove(at ring.Member, when time.Time) {
	known, first := t.losses.prove(at, when)
	if first {
		t.signal()
	}
	id := Identity{Name: at.Name, Incarnation: at.Incarnation}
	if rec := t.records[id.GossipName()]; !known && rec != nil && rec.refused == "" && at.Name != t.self.Name && (at.Addr == "" || at.Addr == rec.addr) {
		rec.standing = rec.proven(when)
	}
}

// restarted reports whether gossip still believes an earlier incarnation of a member to be alive, and that one has not said
// that it leaves. The caller holds mu.
func (t *table) restarted(id *Identity) bool {
	for _, other := range t.records {
		if other.refused == "" && other.id.Name == id.Name && other.id.Incarnation < id.Incarnation && !other.departing() {
			return true
		}
	}
	return false
}

// NotifyLeave records a member that is gone. memberlist does not say whether it left or died (the state in its Node is
// never set), so this depends on what the member announced.
func (t *table) NotifyLeave(n *memberlist.Node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	rec := t.records[n.Name]
	if rec == nil || n.Name == t.self.GossipName() {
		return // this node itself stays in the table until the end
	}
	now, f := time.Now(), leaves
	if rec.refused == "" {
		rec.standing, f = rec.dead(now, t.hearing.AbleFor(now))
	}
	if f == stays {
		t.notices.say(slog.LevelWarn, "gossip declares a member dead while this node cannot listen: the member stays in the view for now",
			"member", rec.id.Name, "address", rec.addr)
	} else {
		t.remove(n.Name, rec, f, now)
	}
	t.signal()
}

// decideDoubted decides on the doubted members. It returns when to look again, or 0 if none is doubted. The caller holds
// mu.
func (t *table) decideDoubted(now time.Time) (again time.Duration) {
	able := t.hearing.AbleFor(now)
	for gossipName, rec := range t.records {
		f, wait := rec.decide(now, able)
		if f == stays {
			again = soonest(again, wait)
		} else {
			t.remove(gossipName, rec, f, now)
		}
	}
	return again
}

// remove removes a member that has left or is lost from the table. The caller holds mu.
func (t *table) remove(gossipName string, rec *record, f fate, now time.Time) {
	delete(t.records, gossipName)
	delete(t.reportedDoubles, gossipName)
	if rec.refused != "" {
		return
	}
	if rec.id.Name == t.self.Name && rec.id.Incarnation > t.self.Incarnation {
		t.mustContradict = true
	}
	if f == leaves {
		if rec.leaving {
			if len(t.departed) == maxDeparted {
				t.departed = slices.Delete(t.departed, 0, 1)
			}
			t.departed = append(t.departed, gossipName)
		}
		t.losses.drop(&rec.id)
		t.notices.say(slog.LevelInfo, "a member has left", "member", rec.id.Name, "address", rec.addr)
		return
	}
	live := make(map[string]bool, len(t.records))
	for _, other := range t.records {
		if other.refused != "" {
			continue
		}
		if other.id.Name == rec.id.Name && other.id.Incarnation > rec.id.Incarnation {
			return // an earlier incarnation of a member that is back
		}
		live[other.id.Name] = true
	}
	t.losses.add(startID{rec.id.Name, rec.id.Incarnation}, lost{addr: rec.addr, at: now, ended: rec.ended}, len(live))
	t.notices.say(slog.LevelWarn, "a member is lost", "member", rec.id.Name, "address", rec.addr)
}

// NotifyPingComplete records how long a probe took.
func (t *table) NotifyPingComplete(n *memberlist.Node, rtt time.Duration, _ []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if rec := t.records[n.Name]; rec != nil {
		t.contradicted(rec)
		rec.standing = rec.probed()
		if rec.rtt == 0 {
			rec.rtt = rtt
		} else {
			rec.rtt += (rtt - rec.rtt) / 8
		}
	}
}

// contradicted records a sign of life of a member that had been retired. The caller holds mu.
func (t *table) contradicted(rec *record) {
	if !rec.retired {
		return
	}
	rec.standing = rec.spoke()
	t.notices.say(slog.LevelWarn, "a member is alive although a later one of its name has left: names must be unique", "member", rec.id.Name, "address", rec.addr)
	t.signal()
}

// AckPayload adds nothing to the answers to probes.
func (t *table) AckPayload() []byte { return nil }

// NodeMeta returns this node's identity. Its limits keep it below the one of memberlist, which a test checks.
func (t *table) NodeMeta(int) []byte {
	t.mu.Lock()
	id := t.self
	id.leaving = t.leaving
	t.mu.Unlock()
	return id.Append(nil)
}

// NotifyMsg handles a message from another member. It is an announcement, the meta of a member that joins or leaves, which
// is sent to each member directly because gossip takes a while and may lose it; or it says which members rest.
func (t *table) NotifyMsg(msg []byte) {
	if len(msg) > 0 && msg[0] == flapFormat {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.flaps.merge(msg[1:], time.Now())
		t.signal()
		return
	}
	id, err := DecodeIdentity(msg)
	if err != nil || t.admissible(&id, id.GossipName()) != "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	rec := t.records[id.GossipName()]
	switch {
	case id.Name == t.self.Name:
		if !id.leaving || id.Incarnation == t.self.Incarnation {
			return
		}
		t.mustContradict = true
		if rec != nil {
			rec.standing = rec.leaves()
		}
	case id.leaving:
		delete(t.expected, id.Name)
		for _, other := range t.records {
			switch {
			case other.id.Name != id.Name || other.id.Incarnation > id.Incarnation || other.refused != "":
			case other.id.Incarnation == id.Incarnation:
				other.standing = other.leaves()
			default:
				other.standing = other.retires()
			}
		}
	case rec != nil:
		t.contradicted(rec)
	case rec == nil && len(t.expected) < maxExpected:
		t.expected[id.Name] = expected{id.Incarnation, time.Now().Add(expectTime)}
	}
	t.signal()
}

// GetBroadcasts returns nothing to gossip.
func (t *table) GetBroadcasts(int, int) [][]byte { return nil }

// lostFormat is the first byte of the list of lost members.
const lostFormat = 1

// LocalState returns the list of lost members, because a joining node must divide a cap by as many as the others do. It
// consists of the format byte, names as texts as in the meta, an empty text, the resting members (see flap), an empty text,
// and what else is known of the lost members (see ended.go). An earlier version ignores what it does not know.
func (t *table) LocalState(bool) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.losses.lost)+len(t.flaps.of)+len(t.losses.ended) == 0 {
		return nil
	}
	now := time.Now()
	buf := []byte{lostFormat}
	for at, l := range t.losses.lost {
		if !l.nameOnly() { // a name alone is listed only by members that have seen the loss
			buf = append(append(buf, byte(len(at.name))), at.name...)
		}
	}
	return t.losses.append(append(t.flaps.append(append(buf, 0), now), 0), now)
}

// MergeRemoteState merges the resting members and what is known of lost ones. When nodes join, it also merges the lost
// members that the other node counts.
func (t *table) MergeRemoteState(buf []byte, join bool) {
	if len(buf) == 0 || buf[0] != lostFormat {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.signal()
	var names []string
	for buf = buf[1:]; len(buf) > 0 && buf[0] != 0; {
		name, rest, err := cutText(buf, MaxName)
		if err != nil {
			return
		}
		names, buf = append(names, name), rest
	}
	now := time.Now()
	if len(buf) > 0 {
		buf = t.flaps.merge(buf[1:], now)
	}
	live := make(map[string]uint64, len(t.records)) // the latest incarnation
	for _, rec := range t.records {
		live[rec.id.Name] = max(live[rec.id.Name], rec.id.Incarnation)
	}
	take := func(at startID, l lost) {
		if newest, ok := live[at.name]; join && (!ok || at.incarnation > newest) && len(t.losses.lost) < len(t.records)+t.losses.peak {
			t.losses.lost[at] = l
		}
	}
	t.losses.merge(lostNews{names, buf, join}, take, t.prove, now)
}

// leave marks this node as leaving: it drops out of every view.
func (t *table) leave() {
	t.mu.Lock()
	t.leaving = true
	rec := t.records[t.self.GossipName()]
	rec.standing = rec.leaves()
	t.mu.Unlock()
	t.signal()
}

// lost reports whether a member vanished without leaving.
func (t *table) lost(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.losses.has(name)
}

// lostCount returns how many starts are lost.
func (t *table) lostCount() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.losses.lost)
}
