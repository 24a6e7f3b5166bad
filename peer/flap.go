package peer

import (
	"encoding/binary"
	"log/slog"
	"math"
	"time"
)

// A member that is lost and comes back again and again would take its keys with it each time. So each
// return without a leave adds one to the member's penalty, which halves every Gossip.HoldDown. From restAt on, two
// returns within less than a half-life, the member rests: it is in the view, is told of every
// invalidation and answers, but owns nothing, until the penalty has fallen below wakeAt. One crash, or
// a restart of each node in turn, makes nobody rest.
//
// Members see nearly the same. Who learns of a higher penalty of one that rests tells some others at once, and everybody
// tells when states are exchanged: the highest counts. So they come to one view, and a member that
// starts learns that it is to rest.
// While they differ, the worst that a read meets is that who is asked is not the owner.
const (
	// DefaultHoldDown is Gossip.HoldDown where it is 0.
	DefaultHoldDown = time.Minute

	restAt = 1.5
	wakeAt = 0.75
	// penaltyMax bounds the penalty, and with it for how long a member rests: for three half-lives.
	penaltyMax = 6
	// flapFormat is the first byte of a message that tells of who rests.
	flapFormat = 0xF1
	// flapFanout is how many members are told of a penalty that is news, and flapNews by how much it must
	// be higher to be.
	flapFanout = 4
	flapNews   = 0.05
	// onceFor is how far apart two signs of one return may be.
	onceFor = 3 * time.Second
	// maxFlaps bounds the members whose penalties are remembered.
	maxFlaps = 256
)

// A flap is what a member's returns have come to.
type flap struct {
	penalty float64 // as of at
	at      time.Time
	last    time.Time // when the penalty last rose
	rests   bool
}

// after returns the flap as of now, where penalties halve every half.
func (f flap) after(now time.Time, half time.Duration) flap {
	if d := now.Sub(f.at); d > 0 {
		f.penalty *= math.Exp2(-float64(d) / float64(half))
		f.at = now
	}
	f.rests = f.rests && f.penalty >= wakeAt
	return f
}

// more returns the flap with a higher penalty.
func (f flap) more(by float64) flap {
	f.penalty = min(f.penalty+by, penaltyMax)
	f.rests = f.rests || f.penalty >= restAt
	return f
}

// left is for how long the member still rests.
func (f flap) left(half time.Duration) time.Duration {
	return time.Duration(math.Log2(f.penalty/wakeAt)*float64(half)) + time.Millisecond
}

// returned notes that a member is back that had not left. The caller holds mu.
func (r *roster) returned(name string, now time.Time) {
	if r.hold <= 0 || name == r.self.name {
		return
	}
	f, known := r.flaps[name]
	if !known && len(r.flaps) >= maxFlaps || known && now.Sub(f.last) < onceFor {
		return
	}
	f = f.after(now, r.hold).more(1)
	f.last = now
	r.flaps[name] = f
	r.flapped = r.flapped || f.rests
}

// answered notes that a member answers again that this node alone, or first, has found silent.
func (r *roster) answered(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.returned(name, time.Now())
	r.signal()
}

// crowd marks the lost members if they are half of all: it may as well be this node that is cut off, and
// their coming back is none of their doing. The caller holds mu.
func (r *roster) crowd() {
	live := make(map[string]bool, len(r.table))
	for _, rec := range r.table {
		if rec.refused == "" {
			live[rec.id.name] = true
		}
	}
	if len(r.vanished) < len(live) {
		return
	}
	for name, l := range r.vanished {
		l.crowd = true
		r.vanished[name] = l
	}
}

// resting returns the names of the members that are to rest, and after what time to look again. If they are more than a
// third, or this is a pair, nobody rests: somebody has to own the keys. The caller holds mu.
func (r *roster) resting(chosen map[string]*record, now time.Time) (names map[string]bool, again time.Duration) {
	names = make(map[string]bool)
	for name, f := range r.flaps {
		if f = f.after(now, r.hold); f.penalty < 0.01 {
			delete(r.flaps, name)
			continue
		}
		r.flaps[name] = f
		if f.rests {
			again = soonest(again, f.left(r.hold))
			if chosen[name] != nil {
				names[name] = true
			}
		}
	}
	if 3*len(names) > len(chosen) {
		clear(names)
	}
	for name := range names {
		if !r.rests[name] {
			r.say(slog.LevelWarn, "a member flaps: it rests, and owns nothing for a while", "member", name, "for", r.flaps[name].left(r.hold).Round(time.Second))
		}
	}
	for name := range r.rests {
		if !names[name] && chosen[name] != nil {
			r.say(slog.LevelInfo, "a member rests no more", "member", name)
		}
	}
	r.rests = names
	return names, again
}

// appendFlaps appends the penalties of the members that rest, or would if they were fewer: name and penalty in thousandths.
// The caller holds mu.
func (r *roster) appendFlaps(buf []byte, now time.Time) []byte {
	for name, f := range r.flaps {
		if f = f.after(now, r.hold); f.rests {
			buf = append(append(buf, byte(len(name))), name...)
			buf = binary.BigEndian.AppendUint16(buf, uint16(f.penalty*1000))
		}
	}
	return buf
}

// mergeFlaps takes over what appendFlaps has written on another member, and returns what comes behind the empty text that ends it.
// The caller holds mu.
func (r *roster) mergeFlaps(buf []byte, now time.Time) (rest []byte) {
	for len(buf) > 0 {
		if buf[0] == 0 {
			return buf[1:]
		}
		name, rest, err := cutText(buf, MaxName)
		if err != nil || len(rest) < 2 {
			return nil
		}
		told := min(float64(binary.BigEndian.Uint16(rest))/1000, penaltyMax)
		buf = rest[2:]
		f, known := r.flaps[name]
		if r.hold <= 0 || !known && len(r.flaps) >= maxFlaps {
			continue
		}
		f = f.after(now, r.hold)
		if higher := told > f.penalty+flapNews; higher && told > wakeAt+flapNews || !f.rests && told > wakeAt+flapNews {
			r.flapped = true
			f.penalty, f.rests = max(f.penalty, told), true
			r.flaps[name] = f
		}
	}
	return nil
}

// news returns the message for other members, if there is news of who rests. The caller holds mu.
func (r *roster) news(now time.Time) []byte {
	if !r.flapped {
		return nil
	}
	r.flapped = false
	return r.appendFlaps([]byte{flapFormat}, now)
}
