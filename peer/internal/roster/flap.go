package roster

import (
	"encoding/binary"
	"log/slog"
	"math"
	"time"
)

// A member that is lost and comes back again and again would move its keys each time. So each return without a leave adds
// one to the member's penalty, which halves every Gossip.HoldDown. Once the penalty reaches restAt, after two returns
// within less than a half-life, the member rests: it is in the view, receives every invalidation and answers requests, but
// owns nothing until the penalty has fallen below wakeAt. One crash, or a rolling restart of all nodes, makes no member
// rest.
//
// Members have nearly the same penalties. A member that learns of a higher penalty of a resting one tells some others at
// once, and all members compare penalties when states are exchanged; the highest counts. So they converge on one view, and
// a member that starts learns that it is to rest. While they differ, the worst that a read meets is a member that is not
// the owner.
const (
	// DefaultHoldDown is the usual half-life of a penalty.
	DefaultHoldDown = time.Minute

	restAt = 1.5
	wakeAt = 0.75
	// penaltyMax bounds the penalty, and thereby how long a member rests: three half-lives.
	penaltyMax = 6
	// flapFormat is the first byte of a message that says which members rest.
	flapFormat = 0xF1
	// flapFanout is how many members are told of a new penalty. flapNews is by how much a penalty must be higher to count
	// as new.
	flapFanout = 4
	flapNews   = 0.05
	// onceFor is how far apart two signs of one return may be.
	onceFor = 3 * time.Second
	// maxFlaps bounds the members whose penalties are remembered.
	maxFlaps = 256
)

// A flap holds the penalty for a member's returns.
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

// more returns the flap with its penalty raised by by.
func (f flap) more(by float64) flap {
	f.penalty = min(f.penalty+by, penaltyMax)
	f.rests = f.rests || f.penalty >= restAt
	return f
}

// left returns how long the member still rests.
func (f flap) left(half time.Duration) time.Duration {
	return time.Duration(math.Log2(f.penalty/wakeAt)*float64(half)) + time.Millisecond
}

// returned records that a member is back that had not left. The caller holds mu.
func (t *table) returned(name string, now time.Time) {
	if t.hold <= 0 || name == t.self.Name {
		return
	}
	f, known := t.flaps[name]
	if !known && len(t.flaps) >= maxFlaps || known && now.Sub(f.last) < onceFor {
		return
	}
	f = f.after(now, t.hold).more(1)
	f.last = now
	t.flaps[name] = f
	t.flapped = t.flapped || f.rests
}

// answered records that a member answers again that only this node, or this node first, had found silent.
func (t *table) answered(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.returned(name, time.Now())
	t.signal()
}

// crowd marks the lost members if they are at least as many as the live ones. This node may then be the one that is cut
// off, and their return must not count against them. The caller holds mu.
func (t *table) crowd() {
	live := make(map[string]bool, len(t.records))
	for _, rec := range t.records {
		if rec.refused == "" {
			live[rec.id.Name] = true
		}
	}
	if len(t.vanished) < len(live) {
		return
	}
	for at, l := range t.vanished {
		l.crowd = true
		t.vanished[at] = l
	}
}

// resting returns the names of the members that are to rest, and when to look again. If they are more than a third of all,
// or there are only two members, nobody rests, because somebody has to own the keys. The caller holds mu.
func (t *table) resting(chosen map[string]*record, now time.Time) (names map[string]bool, again time.Duration) {
	names = make(map[string]bool)
	for name, f := range t.flaps {
		if f = f.after(now, t.hold); f.penalty < 0.01 {
			delete(t.flaps, name)
			continue
		}
		t.flaps[name] = f
		if f.rests {
			again = soonest(again, f.left(t.hold))
			if chosen[name] != nil {
				names[name] = true
			}
		}
	}
	if 3*len(names) > len(chosen) {
		clear(names)
	}
	for name := range names {
		if !t.rests[name] {
			t.say(slog.LevelWarn, "a member flaps: it rests, and owns nothing for a while", "member", name, "for", t.flaps[name].left(t.hold).Round(time.Second))
		}
	}
	for name := range t.rests {
		if !names[name] && chosen[name] != nil {
			t.say(slog.LevelInfo, "a member no longer rests", "member", name)
		}
	}
	t.rests = names
	return names, again
}

// appendFlaps appends the penalties of the members that rest, or would rest if they were fewer: name, and penalty in
// thousandths. The caller holds mu.
func (t *table) appendFlaps(buf []byte, now time.Time) []byte {
	for name, f := range t.flaps {
		if f = f.after(now, t.hold); f.rests {
			buf = append(append(buf, byte(len(name))), name...)
			buf = binary.BigEndian.AppendUint16(buf, uint16(f.penalty*1000))
		}
	}
	return buf
}

// mergeFlaps merges what appendFlaps has written on another member, and returns what follows the empty text that ends it.
// The caller holds mu.
func (t *table) mergeFlaps(buf []byte, now time.Time) (rest []byte) {
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
		f, known := t.flaps[name]
		if t.hold <= 0 || !known && len(t.flaps) >= maxFlaps {
			continue
		}
		f = f.after(now, t.hold)
		if higher := told > f.penalty+flapNews; higher && told > wakeAt+flapNews || !f.rests && told > wakeAt+flapNews {
			t.flapped = true
			f.penalty, f.rests = max(f.penalty, told), true
			t.flaps[name] = f
		}
	}
	return nil
}

// news returns a message for other members if it has changed which members rest, or else nil. The caller holds mu.
func (t *table) news(now time.Time) []byte {
	if !t.flapped {
		return nil
	}
	t.flapped = false
	return t.appendFlaps([]byte{flapFormat}, now)
}
