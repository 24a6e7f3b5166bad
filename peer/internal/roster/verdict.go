package roster

import (
	"log/slog"
	"slices"
	"time"
)

// Gossip declares a member dead if it answers no probe for a while. A node that cannot read its sockets (package hearing) gets
// no answers, and blames the others. A living member contradicts within a second of hearing of its death. So a node that
// was hard of hearing keeps the member in its view until it has been able to listen for long enough to hear the
// contradiction:
//
//	event                                                 the member is
//	gossip says dead, this node was able to listen        lost
//	gossip says dead, this node was hard of hearing       doubted: in the view as before
//	doubted, and gossip says alive                        live, as if nothing had happened
//	doubted, and its process is known to have ended       lost
//	doubted, and this node could listen for refuteWithin  lost
//	doubted for doubtMost                                 lost
//	doubted, and it has said that it leaves               gone, gracefully
const (
	// refuteWithin is how long a living member may take to contradict: some rounds of gossip in both directions.
	refuteWithin = time.Second
	// doubtMost is the longest time that a member stays in the view after it was declared dead.
	doubtMost = 10 * time.Second
)

// verdict reports whether a member that gossip declared dead at doubted is lost at now. able is how long this node has been
// able to listen. If the member is not lost, the verdict may change after again.
func verdict(doubted, now time.Time, able time.Duration) (lost bool, again time.Duration) {
	since := now.Sub(doubted)
	if able >= refuteWithin || since >= doubtMost {
		return true, 0
	}
	return false, min(refuteWithin-able, doubtMost-since)
}

// declaredDead handles gossip's report that a member is dead or has left. The caller holds mu.
func (t *table) declaredDead(gossipName string, rec *record, now time.Time) {
	if t.hearing != nil && !rec.id.leaving && !rec.retired && rec.refused == "" {
		if lost, _ := verdict(now, now, t.hearing.AbleFor(now)); !lost {
			rec.doubted = now
			t.say(slog.LevelWarn, "gossip declares a member dead while this node cannot listen: the member stays in the view for now",
				"member", rec.id.Name, "address", rec.addr)
			return
		}
	}
	t.remove(gossipName, rec, now)
}

// settleVerdicts decides on the doubted members. It returns when to look again, or 0 if none is doubted. The caller holds
// mu.
func (t *table) settleVerdicts(now time.Time) (again time.Duration) {
	for gossipName, rec := range t.records {
		if rec.doubted.IsZero() {
			continue
		}
		lost, wait := verdict(rec.doubted, now, t.hearing.AbleFor(now))
		if lost || !rec.ended.IsZero() || rec.id.leaving || rec.retired {
			t.remove(gossipName, rec, now)
			continue
		}
		again = soonest(again, wait)
	}
	return again
}

// remove removes a member that has left or is lost from the table. The caller holds mu.
func (t *table) remove(gossipName string, rec *record, now time.Time) {
	delete(t.records, gossipName)
	delete(t.doubles, gossipName)
	if rec.refused != "" {
		return
	}
	if rec.id.Name == t.self.Name && rec.id.Incarnation > t.self.Incarnation {
		t.mistaken = true
	}
	if rec.id.leaving || rec.retired {
		if rec.id.leaving {
			if len(t.departed) == maxDeparted {
				t.departed = slices.Delete(t.departed, 0, 1)
			}
			t.departed = append(t.departed, gossipName)
		}
		t.dropLost(&rec.id)
		t.say(slog.LevelInfo, "a member has left", "member", rec.id.Name, "address", rec.addr)
		return
	}
	for _, other := range t.records {
		if other.refused == "" && other.id.Name == rec.id.Name && other.id.Incarnation > rec.id.Incarnation {
			return // an earlier incarnation of a member that is back
		}
	}
	t.vanished[startID{rec.id.Name, rec.id.Incarnation}] = lost{addr: rec.addr, at: now, ended: rec.ended}
	t.crowd()
	t.say(slog.LevelWarn, "a member is lost", "member", rec.id.Name, "address", rec.addr)
}
