package peer

import (
	"log/slog"
	"slices"
	"time"
)

// Gossip says that a member is dead when it has answered no probe for a while. A node that did not get to its sockets (hearing.go)
// has heard no answer, and the member, once it is told, contradicts within a second. So a node that was hard of hearing keeps such a
// member in its view until it has been able to listen for long enough to hear the contradiction:
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
	// doubtMost is for how long at the most a member is kept that gossip believes to be dead.
	doubtMost = 10 * time.Second
)

// verdict says whether a member that gossip has called dead at the time doubted is lost at now, for a node that has been able to listen for so long;
// if not, when to ask again at the latest.
func verdict(doubted, now time.Time, able time.Duration) (lost bool, again time.Duration) {
	since := now.Sub(doubted)
	if able >= refuteWithin || since >= doubtMost {
		return true, 0
	}
	return false, min(refuteWithin-able, doubtMost-since)
}

// dead notes that gossip says of a member that it is dead, or has left. The caller holds mu.
func (r *roster) dead(gossipName string, rec *record, now time.Time) {
	if r.hearing != nil && !rec.id.leaving && !rec.retired && rec.refused == "" {
		if lost, _ := verdict(now, now, r.hearing.ableFor(now)); !lost {
			rec.doubted = now
			r.say(slog.LevelWarn, "gossip says that a member is dead, but this node could not listen: it stays in the view for the moment",
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

// remove takes a member out of the table that gossip says is dead, or has left. The caller holds mu.
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
