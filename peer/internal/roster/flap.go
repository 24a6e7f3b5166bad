package roster

import (
	"encoding/binary"
	"log/slog"
	"math"
	"time"
)

// A member that is lost and comes back again and again would move its keys each time. So each return without a leave adds
// one to the member's penalty, which halves every Config.HoldDown. Once the penalty reaches restAt, after two returns
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
	// forgiven is the penalty below which a member's returns are forgotten.
	forgiven = 0.01
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

// returned returns the flap after another return of the member. counts is false if the return is a second sign of the last
// one.
func (f flap) returned(now time.Time, half time.Duration) (next flap, counts bool) {
	if !f.last.IsZero() && now.Sub(f.last) < onceFor {
		return f, false
	}
	f = f.after(now, half).more(1)
	f.last = now
	return f, true
}

// merged returns the flap after another member has sent its penalty, and whether that was news.
func (f flap) merged(penalty float64, now time.Time, half time.Duration) (next flap, news bool) {
	f = f.after(now, half)
	higher := penalty > f.penalty+flapNews
	if penalty <= wakeAt+flapNews || !higher && f.rests {
		return f, false
	}
	f.penalty, f.rests = max(f.penalty, penalty), true
	return f, true
}

// flaps are the penalties of the members, by name. The table's lock guards them.
type flaps struct {
	half         time.Duration // of a penalty; 0: no member rests
	log          *notices
	of           map[string]flap
	restedBefore map[string]bool // members that rested at the last call of pickResting
	tellOthers   bool            // the others have to be told
}

// returned records that a member is back that had not left.
func (s *flaps) returned(name string, now time.Time) {
	f, known := s.of[name]
	if s.half <= 0 || !known && len(s.of) >= maxFlaps {
		return
	}
	if f, counts := f.returned(now, s.half); counts {
		s.of[name] = f
		s.tellOthers = s.tellOthers || f.rests
	}
}

// pickResting returns which of the members of the next view are to rest, and when to look again. If they are more than a
// third of all, or there are only two members, none rests, because some member has to own the keys.
func (s *flaps) pickResting(members map[string]*record, now time.Time) (names map[string]bool, again time.Duration) {
	names = make(map[string]bool)
	for name, f := range s.of {
		if f = f.after(now, s.half); f.penalty < forgiven {
			delete(s.of, name)
			continue
		}
		s.of[name] = f
		if f.rests {
			again = soonest(again, f.left(s.half))
			if members[name] != nil {
				names[name] = true
			}
		}
	}
	if 3*len(names) > len(members) {
		clear(names)
	}
	for name := range names {
		if !s.restedBefore[name] {
			s.log.say(slog.LevelWarn, "a member flaps: it rests, and owns nothing for a while", "member", name, "for", s.of[name].left(s.half).Round(time.Second))
		}
	}
	for name := range s.restedBefore {
		if !names[name] && members[name] != nil {
			s.log.say(slog.LevelInfo, "a member no longer rests", "member", name)
		}
	}
	s.restedBefore = names
	return names, again
}

// append appends the penalties of the members that rest, or would rest if they were fewer: name, and penalty in
// thousandths.
func (s *flaps) append(buf []byte, now time.Time) []byte {
	for name, f := range s.of {
		if f = f.after(now, s.half); f.rests {
			buf = append(append(buf, byte(len(name))), name...)
			buf = binary.BigEndian.AppendUint16(buf, uint16(f.penalty*1000))
		}
	}
	return buf
}

// merge merges what append has written on another member, and returns what follows the empty text that ends it.
func (s *flaps) merge(buf []byte, now time.Time) (rest []byte) {
	for len(buf) > 0 {
		if buf[0] == 0 {
			return buf[1:]
		}
		name, rest, err := cutText(buf, MaxName)
		if err != nil || len(rest) < 2 {
			return nil
		}
		penalty := min(float64(binary.BigEndian.Uint16(rest))/1000, penaltyMax)
		buf = rest[2:]
		f, known := s.of[name]
		if s.half <= 0 || !known && len(s.of) >= maxFlaps {
			continue
		}
		if f, news := f.merged(penalty, now, s.half); news {
			s.of[name], s.tellOthers = f, true
		}
	}
	return nil
}

// message returns a message for other members if it has changed which members rest, or else nil.
func (s *flaps) message(now time.Time) []byte {
	if !s.tellOthers {
		return nil
	}
	s.tellOthers = false
	return s.append([]byte{flapFormat}, now)
}
