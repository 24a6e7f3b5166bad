package peer

import (
	"log/slog"
	"slices"
	"time"
)

// Gossip declares a member dead that answers no probe for a while. A node that cannot read its sockets (hearing.go) gets no answers,
// and blames the others. A member that lives contradicts within a second of hearing of its death. So a node that was hard of hearing
// keeps the member in its view until it has been able to listen for long enough to hear that:
//
//	event                                              the member is
//	gossip says dead, this node was able to listen     lost
//	gossip says dead, this node was hard of hearing    doubted: in the view as before
//	a doubted one: gossip says alive                   live, and nothing has happened
//	a doubted one: its process is known to have ended  lost
//	a doubted one: able to listen for refuteWithin     lost
//	a doubted one: doubted for doubtMost               lost
//	a doubted one has said that it leaves              gone, in order
const (
	// refuteWithin is how long a member that lives may take to contradict: some rounds of gossip there and back.
	refuteWithin = time.Second
	// doubtMost is the longest time that a member declared dead stays in the view.
	doubtMost = 10 * time.Second
)

// verdict reports whether a member is lost at now that gossip declared dead at doubted; able is for how long this node has been able to
// listen. If it is not lost, the verdict may be another one after again.
func verdict(doubted, now time.Time, able time.Duration) (lost bool, again time.Duration) {
	since := now.Sub(doubted)
	if able >= refuteWithin || since >= doubtMost {
		return true, 0
	}
	return false, min(refuteWithin-able, doubtMost-since)
}

// declaredDead notes that gossip has declared a member dead, or says that it has left. The caller holds mu.
func (r *roster) declaredDead(gossipName string, rec *record, now time.Time) {
	if r.hearing != nil && !rec.id.leaving && !rec.retired && rec.refused == "" {
		if lost, _ := verdict(now, now, r.hearing.ableFor(now)); !lost {
			rec.doubted = now
			r.say(slog.LevelWarn, "gossip declares a member dead while this node cannot listen: the member stays in the view for now",
				"member", rec.id.name, "address", rec.addr)
			return
		}
	}
	r.remove(gossipName, rec, now)
}

// settleVerdicts decides on the doubted members, and returns when to look again; 0: there are none. The caller holds mu.
func (r *roster) settleVerdicts(now time.Time) (again time.Duration) {
	for gossipName, rec := range r.table {
		if rec.doubted.IsZero() {
			continue
		}
		lost, wait := verdict(rec.doubted, now, r.hearing.ableFor(now))
		if lost || !rec.ended.IsZero() || rec.id.leaving || rec.retired {
			r.remove(gossipName, rec, now)
			continue
		}
		again = soonest(again, wait)
	}
	return again
}

// remove takes a member that has left or is lost out of the table. The caller holds mu.
func (r *roster) remove(gossipName string, rec *record, now time.Time) {
	delete(r.table, gossipName)
	delete(r.doubles, gossipName)
	if rec.refused != "" {
		return
	}
	if rec.id.name == r.self.name && rec.id.incarnation > r.self.incarnation {
		r.mistaken = true
	}
	if rec.id.leaving || rec.retired {
		if rec.id.leaving {
			if len(r.departed) == maxDeparted {
				r.departed = slices.Delete(r.departed, 0, 1)
			}
			r.departed = append(r.departed, gossipName)
		}
		delete(r.vanished, rec.id.name)
		r.say(slog.LevelInfo, "a member has left", "member", rec.id.name, "address", rec.addr)
		return
	}
	for _, other := range r.table {
		if other.refused == "" && other.id.name == rec.id.name {
			return // an earlier start of a member that is back
		}
	}
	r.vanished[rec.id.name] = lost{addr: rec.addr, incarnation: rec.id.incarnation, at: now, ended: rec.ended}
	r.crowd()
	r.say(slog.LevelWarn, "a member is lost", "member", rec.id.name, "address", rec.addr)
}
