package roster

import (
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/weircache/weir/peer/internal/hearing"
	"github.com/weircache/weir/peer/internal/loglimit"
)

const (
	// expectTime is how long Divisor counts a member that has announced that it joins and that gossip has not reported yet:
	// several times what gossip needs.
	expectTime = 10 * time.Second
	// maxExpected bounds the announced members that are remembered.
	maxExpected = 128
	// maxDeparted bounds the incarnations that are remembered because they have left gracefully.
	maxDeparted = 512
	// maxNotices bounds the log lines that wait to be written.
	maxNotices = 64
)

// A record is one incarnation of one member, as gossip last reported it.
//
// Which incarnations of a name are in the view, as the knowledge of each changes:
//
//	state    what led there                                       in the view   counts in Divisor
//	live     gossip says that it is alive                         the newest    yes; an earlier incarnation only at another address
//	doubted  gossip says that it is dead, see verdict.go          as before     as before
//	leaving  it has said so itself; it never takes that back      no            yes, likewise
//	retired  a later incarnation has said that it leaves          no            yes
//	gone     gossip says that it is dead, or has left             no            yes, as lost, if it was live and no later incarnation is
//
// In most cases an earlier incarnation is dead: the process crashed, started again and left before gossip had noticed the
// crash. But it may also be another living process that has the same name by mistake. So what a later incarnation says of
// itself only retires an earlier one. Any sign of life of the earlier one, its own message or its answer to a probe, takes
// that back: it contradicts.
type record struct {
	id      Identity
	addr    string
	refused string        // why it cannot be in the view; "": it can
	retired bool          // see above
	ended   time.Time     // since when there is evidence that its process has ended; zero: no evidence, see ended.go
	doubted time.Time     // since when gossip says that it is dead without this node believing it; zero: not doubted, see verdict.go
	rtt     time.Duration // of gossip probes, smoothed; 0: unknown
}

// lost is a member that vanished without leaving. ended.go says how long it counts.
type lost struct {
	addr   string // "": only its name is known, and its incarnation counts as 0
	at     time.Time
	ended  time.Time // since when its process is known to have ended; zero: it may be alive
	listed time.Time // for a member known by name only: when a member last listed it
	crowd  bool      // it vanished together with half of all members, or more
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

// table holds what gossip has reported about the members. memberlist calls its Notify methods, some of them under
// memberlist's lock, so these only record the report and signal. One goroutine of the node evaluates the result.
type table struct {
	self    Identity
	minimum int           // the lowest number that Divisor counts
	limit   int           // the largest number of members in a view
	changed chan struct{} // holds one token when there is something to evaluate
	hold    time.Duration // see flap; 0: no member rests
	giveUp  time.Duration // Config.GiveUp
	// longest returns how long a load of this node may take; nil: loads take no time. It is called without mu held.
	longest func() time.Duration
	hearing *hearing.Monitor // of this node; nil: it always hears
	noise   loglimit.Limiter // limits the log of members kept out of the view to one line for each reason

	mu       sync.Mutex          // guards everything below
	leaving  bool                // this node is leaving
	records  map[string]*record  // live members by gossip name
	vanished map[startID]lost    // one start of a name may be lost while another one lives
	ended    []endedStart        // incarnations that were lost and no longer count, oldest first
	expected map[string]expected // announced members by stable name
	peak     int                 // largest number of live names ever seen at once
	doubles  map[string]bool     // gossip names already reported as older doubles
	flaps    map[string]flap     // by stable name
	rests    map[string]bool     // as of the last look
	flapped  bool                // flaps has news for other members
	departed []string            // gossip names of incarnations that left gracefully, oldest first: they never come back
	mistaken bool                // others may believe that this node is gone: it has to contradict
	notices  []notice
}

func newTable(self Identity, addr string, minimum, limit int) *table {
	return &table{
		self:     self,
		minimum:  minimum,
		limit:    limit,
		changed:  make(chan struct{}, 1),
		records:  map[string]*record{self.GossipName(): {id: self, addr: addr}},
		vanished: make(map[startID]lost),
		expected: make(map[string]expected),
		doubles:  make(map[string]bool),
		flaps:    make(map[string]flap),
	}
}

// signal wakes the goroutine that evaluates the roster.
func (t *table) signal() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// say queues a log line. The caller holds mu.
func (t *table) say(level slog.Level, text string, args ...any) {
	if len(t.notices) < maxNotices {
		t.notices = append(t.notices, notice{level, text, args})
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
		rec.rtt = old.rtt
		rec.id.leaving = rec.id.leaving || old.id.leaving // a leave is final
		t.contradicted(old)
	}
	if rec.refused != "" && (old == nil || old.refused == "") && t.noise.Allow(rec.refused, time.Now()) {
		t.say(slog.LevelError, "a member is kept out of the view", "member", n.Name, "address", rec.addr, "reason", rec.refused)
	}
	t.records[n.Name] = rec
	if rec.refused == "" {
		if old == nil && (t.wasLost(&id) || t.restarted(&id)) {
			t.returned(id.Name, time.Now())
		}
		t.revived(&id, rec.addr)
		t.dropLost(&id)
		delete(t.expected, id.Name)
	}
	t.signal()
}

// wasLost reports whether this start of a member, or an earlier one, is lost and known by more than its name, and did not
// vanish in a crowd. The caller holds mu.
func (t *table) wasLost(id *Identity) bool {
	for at, l := range t.vanished {
		if at.name == id.Name && at.incarnation <= id.Incarnation && !l.bare() && !l.crowd {
			return true
		}
	}
	return false
}

// dropLost removes this start of a member and the earlier ones from the lost ones, because it is alive or has left. The
// caller holds mu.
func (t *table) dropLost(id *Identity) {
	maps.DeleteFunc(t.vanished, func(at startID, _ lost) bool { return at.name == id.Name && at.incarnation <= id.Incarnation })
}

// restarted reports whether an earlier incarnation of a member is still believed to live, without having said that it
// leaves. The caller holds mu.
func (t *table) restarted(id *Identity) bool {
	for _, other := range t.records {
		if other.refused == "" && other.id.Name == id.Name && other.id.Incarnation < id.Incarnation && !other.id.leaving && !other.retired {
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
	t.declaredDead(n.Name, rec, time.Now())
	t.signal()
}

// NotifyPingComplete records how long a probe took.
func (t *table) NotifyPingComplete(n *memberlist.Node, rtt time.Duration, _ []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if rec := t.records[n.Name]; rec != nil {
		t.contradicted(rec)
		rec.ended = time.Time{}
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
	rec.retired = false
	t.say(slog.LevelWarn, "a member is alive although a later one of its name has left: names must be unique", "member", rec.id.Name, "address", rec.addr)
	t.signal()
}

// AckPayload adds nothing to the answers to probes.
func (t *table) AckPayload() []byte { return nil }

// NodeMeta returns this node's identity.
func (t *table) NodeMeta(limit int) []byte {
	t.mu.Lock()
	id := t.self
	id.leaving = t.leaving
	t.mu.Unlock()
	meta := id.Append(make([]byte, 0, metaMax))
	if len(meta) > limit {
		return nil // cannot happen: metaMax is below memberlist's limit, which a test checks
	}
	return meta
}

// NotifyMsg handles a message from another member. It is an announcement, the meta of a member that joins or leaves, which
// is sent to each member directly because gossip takes a while and may lose it; or it says which members rest.
func (t *table) NotifyMsg(msg []byte) {
	if len(msg) > 0 && msg[0] == flapFormat {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.mergeFlaps(msg[1:], time.Now())
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
		t.mistaken = true
		if rec != nil {
			rec.id.leaving = true
		}
	case id.leaving:
		delete(t.expected, id.Name)
		for _, other := range t.records {
			switch {
			case other.id.Name != id.Name || other.id.Incarnation > id.Incarnation || other.refused != "":
			case other.id.Incarnation == id.Incarnation:
				other.id.leaving = true
			default:
				other.retired = true
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
	if len(t.vanished)+len(t.flaps)+len(t.ended) == 0 {
		return nil
	}
	now := time.Now()
	buf := []byte{lostFormat}
	for at, l := range t.vanished {
		if !l.bare() { // a name alone is listed only by members that have seen the loss
			buf = append(append(buf, byte(len(at.name))), at.name...)
		}
	}
	return t.appendLost(append(t.appendFlaps(append(buf, 0), now), 0), now)
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
		buf = t.mergeFlaps(buf[1:], now)
	}
	t.mergeLost(names, buf, join, now)
}

// leave marks this node as leaving: it drops out of every view.
func (t *table) leave() {
	t.mu.Lock()
	t.leaving = true
	t.records[t.self.GossipName()].id.leaving = true
	t.mu.Unlock()
	t.signal()
}

// lost reports whether a member vanished without leaving.
func (t *table) lost(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.isLost(name)
}

// lostCount returns how many starts are lost.
func (t *table) lostCount() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.vanished)
}

// Lost reports whether a start of a member is lost. The caller holds mu.
func (t *table) isLost(name string) bool {
	for at := range t.vanished {
		if at.name == name {
			return true
		}
	}
	return false
}
