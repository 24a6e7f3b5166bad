package roster

import (
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
