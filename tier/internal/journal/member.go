package journal

import (
	"errors"
	"maps"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
)

// What this cache knows of another member, and how that changes
//
// In the first table each row is a state. Journal.mu guards all of it. state.next (pump.go) decides what a member's
// pump does in each state.
//
//	state     condition                                       the pump                      reads
//	unknown   no watermark, and it may have the cache         has an exchange               wait for an exchange before they ask
//	current   its watermark is known, nothing is due          sleeps                        carry at most the mark that is owed
//	behind    its watermark is known, own top > confirmed.all sends what is missing         carry the mark, or have an exchange first
//	gap       it lacks something, or the log is short         has an exchange               as behind
//	empty     the member has no such cache                    asks again when an            have an exchange first
//	                                                          invalidation is started
//	outside   via: only that member sees it                   relays what a wait needs      never ask it
//	gone      out of the view                                 ends                          never ask it
//
//	event                                            from             to        confirmed
//	the member comes into the view                   -, outside       unknown   nothing; from outside: unchanged
//	its node's incarnation changes                   any in view      unknown   unchanged: its cache is a new one, and empty
//	an exchange ends                                 any in view      current   all up to own top when the exchange began
//	this cache starts an invalidation                current          behind    unchanged
//	it confirms a frame                              behind           current,  the numbers of the frame, and only those
//	                                                                  behind
//	it confirms a frame through another member       behind, outside  the same  the numbers of the frame, and only those
//	it says that it lacks something earlier          behind           gap       the numbers of the frame
//	a list of retired positions is due, and there
//	was no exchange since it began (retire.go)       behind           gap       unchanged
//	it says that it has no such cache                any              empty     all up to the last number that it was sent
//	it answers as another cache                      current, behind  unknown   the numbers of the frame
//	it does not answer                               any              the same  unchanged; retried, and relayed if a wait needs it
//	another member names it                          -                outside   nothing
//	no member names it for outsideFor                outside          gone      each Wait that it has not confirmed in full
//	                                                                            names it
//	it leaves the view                               any in view      gone      the same
//
// The confirmed invalidations are a set of numbers (confirmed.go), so an event confirms only the numbers that it is
// about. A Wait ends when all of it has been started and every member that is not gone has confirmed each of its
// numbers.

const (
	// outsideFor is how long, in ns, a member that only others see is remembered.
	outsideFor = int64(15 * time.Second)
	// departedFor is how long, in ns, a member that has left the view is remembered.
	departedFor = int64(time.Minute)
)

// A Watermark is what another member's cache is known to have applied. It never changes.
type Watermark struct {
	fence.Watermark
	total, own uint64 // the log's total and this cache's own top when the watermark was taken
}

// Fences returns the fence clocks of w, or nil if w is nil.
func (w *Watermark) Fences() *fence.Watermark {
	if w == nil {
		return nil
	}
	return &w.Watermark
}

// A Member is another member as this journal tracks it. Its exported methods are safe for concurrent use.
type Member struct {
	name      string
	watermark atomic.Pointer[Watermark] // nil: there was no exchange yet, or the member's cache is gone
	reply     atomic.Pointer[Reply]     // to the last exchange; nil: none
	wake      chan struct{}             // wakes the pump

	// guarded by Journal.mu
	node    ring.Member // zero while via is set: its address is unknown here
	via     string      // the member that has it in its view while this node has not; "": it is in this node's view
	entered int64       // when it came into the view, left it, or via last named it; ns on the cache's clock
	// compared: since it entered there was an exchange, or it was found to have no cache.
	compared bool
	// acquainted: since it entered it has had the same view as this node, so it has seen this node.
	acquainted bool
	gone       bool // out of the view
	// confirmed are this cache's own numbers that the member has applied, or that were started before it was found to
	// have no cache.
	confirmed   confirmed
	empty       bool // it had no such cache when last asked
	gap         bool // it lacks something earlier, or the log cannot send all that it lacks
	exchangeDue bool
	exchanged   int64     // when the last exchange ended, ns on the cache's clock
	exchange    *exchange // in progress, nil: none
	pumping     bool
	err         error // how the last attempt ended

	direct, relayed backoff // of the pump
}

// A Reply is what a member said of itself when it was asked for an exchange.
type Reply struct {
	View  uint64 // the fingerprint of the view under which it was asked
	Flags uint8  // of the response; 0 if Empty
	Empty bool   // it has no such cache
}

// Name returns the member's name.
func (m *Member) Name() string { return m.name }

// Watermark returns what the member is known to have applied, or nil if that is not known.
func (m *Member) Watermark() *Watermark { return m.watermark.Load() }

// Reply returns the member's reply to the last exchange, or nil if there is none.
func (m *Member) Reply() *Reply { return m.reply.Load() }

// inView reports whether m is in this node's view. Only such a member can be asked: the address of one that only others
// see is unknown here. The caller holds Journal.mu.
func (m *Member) inView() bool { return m.via == "" && !m.gone }

// relays reports whether m can be asked to relay to another member: this node sees it, and the last attempt reached it.
// The caller holds Journal.mu.
func (m *Member) relays() bool { return m.inView() && m.err == nil && !m.empty }

// wakeUp wakes m's pump if it sleeps.
func (m *Member) wakeUp() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// ErrGone says that a member has left the view.
var ErrGone = errors.New("weir: gone from the view")

// Member returns a member of the view, or nil. It takes no lock if the member is known.
func (j *Journal) Member(name string) *Member {
	if m := (*j.published.Load())[name]; m != nil {
		return m
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.applyView()
	return j.members[name]
}

// Departed returns a member that has left the view, for requests to that start of its node. It is remembered for
// departedFor.
func (j *Journal) Departed(node ring.Member) *Member {
	j.mu.Lock()
	defer j.mu.Unlock()
	m := j.departed[node.Name]
	if m == nil || m.node.Incarnation != node.Incarnation {
		m = newMember(node.Name, j.now())
		m.node = node
		if j.departed == nil {
			j.departed = make(map[string]*Member)
		}
		j.departed[node.Name] = m
	}
	return m
}

// forgetDeparted forgets members that left the view more than departedFor ago. The caller holds mu.
func (j *Journal) forgetDeparted(now int64) {
	for name, m := range j.departed {
		if now-m.entered > departedFor {
			delete(j.departed, name)
		}
	}
}

// Relays returns up to maxRelays members that can be asked to relay something to the member named to.
func (j *Journal) Relays(to string) (through []ring.Member) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, m := range j.members {
		if m.name != to && m.relays() && len(through) < maxRelays {
			through = append(through, m.node)
		}
	}
	return through
}

// Forget drops w, the watermark of a member, because another cache has answered under the member's name.
func (j *Journal) Forget(m *Member, w *Watermark) {
	if !m.watermark.CompareAndSwap(w, nil) {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.members[m.name] == m {
		j.startPump(m)
	}
}

// applyView takes note of a new view, if there is one. The caller holds mu.
func (j *Journal) applyView() {
	if j.peers == nil {
		return
	}
	view := j.peers.View()
	if view == j.view {
		return
	}
	j.view = view
	now := j.now()
	next := make(map[string]*Member)
	for _, node := range view.Members() {
		if node.Name == j.self {
			continue
		}
		m := j.members[node.Name]
		switch {
		case m == nil:
			m = newMember(node.Name, now)
		case m.via != "":
			m.via, m.entered = "", now
		case m.node.Incarnation != node.Incarnation:
			m.entered, m.compared, m.acquainted = now, false, false
			m.watermark.Store(nil)
		}
		if m.node != node { // its address may have changed
			m.node, m.direct = node, backoff{}
		}
		next[node.Name] = m
	}
	removed := false
	for name, m := range j.members {
		if next[name] != nil {
			continue
		}
		if m.via != "" {
			next[name] = m
			continue
		}
		j.remove(m)
		removed = true
	}
	j.publish(next)
	for _, m := range next {
		j.startPump(m)
	}
	if removed {
		j.endWaits()
	}
}

func newMember(name string, now int64) *Member {
	return &Member{name: name, wake: make(chan struct{}, 1), entered: now}
}

// publish makes members the map that readers see. The caller holds mu.
func (j *Journal) publish(members map[string]*Member) {
	j.members = members
	j.published.Store(&members)
	j.notePending()
}

// remove gives a member up. Each Wait that the member has not confirmed in full names it, including one that is still
// being started. The caller holds mu and removes m from members.
func (j *Journal) remove(m *Member) {
	m.gone = true
	for _, w := range j.waits {
		if !w.by(m) {
			w.fail(m.name, errors.Join(ErrGone, m.err))
		}
	}
	m.wakeUp()
}

// addOutside notes the members that another member, via, has in its view. The caller holds mu.
func (j *Journal) addOutside(names [][]byte, via string) {
	var next map[string]*Member
	now := j.now()
	for _, b := range names {
		name := string(b)
		m := j.members[name]
		if name == j.self || m != nil && m.via == "" {
			continue
		}
		if m == nil {
			if next == nil {
				next = maps.Clone(j.members)
			}
			m = newMember(name, now)
			m.compared = true // this node never asks it
			next[name] = m
		}
		m.via, m.entered = via, now
	}
	if next != nil {
		j.publish(next)
	}
	for _, m := range j.members {
		if m.via != "" {
			j.startPump(m)
		}
	}
}
