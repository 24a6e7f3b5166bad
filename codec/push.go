package codec

import (
	"context"
	"encoding/binary"
	"time"
)

const (
	// MaxPushed is how many copies one frame may carry.
	MaxPushed = 1 << 9
	// pushedLeast is the least number of bytes that a copy takes in a frame.
	pushedLeast = 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1
)

// Pushed is one copy that a member gives to another. A decoded Pushed borrows Key and Value. Durations count
// from when the frame was made, in microseconds on the wire.
type Pushed struct {
	Key      []byte
	Value    []byte // encoded; empty with NotFound
	NotFound bool   // the origin has no value
	Heat     uint8  // how much it was requested recently, from 0 to MaxHeat
	Age      time.Duration
	Soft     time.Duration // to soft expiry; negative: past it
	Hard     time.Duration // to hard expiry
	Cost     time.Duration // how long its load took
	Version  uint64        // the origin's, 0: unknown
	Tags     []uint32      // hashes of its tags
}

// MaxHeat is the highest Heat.
const MaxHeat = 3

// size returns an upper estimate of the bytes that p takes in a frame.
func (p *Pushed) size() int {
	return 10*binary.MaxVarintLen64 + 2 + 4*len(p.Tags) + len(p.Key) + len(p.Value)
}

const (
	pushedNotFound = 1 << 2
	pushedFlags    = pushedNotFound | MaxHeat
)

func appendPushed(dst []byte, list []Pushed) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for i := range list {
		p := &list[i]
		flags := min(p.Heat, MaxHeat)
		if p.NotFound {
			flags |= pushedNotFound
		}
		dst = append(dst, flags)
		dst = appendDuration(dst, p.Age)
		dst = binary.AppendVarint(dst, floorMicros(p.Soft))
		dst = appendDuration(dst, p.Hard.Truncate(time.Microsecond))
		dst = appendDuration(dst, p.Cost)
		dst = binary.AppendUvarint(dst, p.Version)
		dst = appendTags(dst, p.Tags)
		dst = appendBytes(dst, p.Key)
		dst = appendBytes(dst, p.Value)
	}
	return dst
}

// pushed reads copies and reuses the memory of list.
func (d *decoder) pushed(list []Pushed) []Pushed {
	count := d.count("copies", MaxPushed, pushedLeast)
	list = room(list, count)
	for i := range count {
		flags := d.byte()
		if flags&^pushedFlags != 0 {
			d.newer("flags %#x of a copy", flags&^pushedFlags)
		}
		p := Pushed{NotFound: flags&pushedNotFound != 0, Heat: flags & MaxHeat}
		p.Age, p.Soft, p.Hard, p.Cost = d.duration(), d.signedDuration(), d.duration(), d.duration()
		p.Version = d.uvarint()
		p.Tags = d.tags(list[:cap(list)][i].Tags[:0])
		p.Key = d.bytes("key", MaxKey)
		p.Value = d.bytes("value", len(d.b))
		if d.err == nil && p.NotFound && len(p.Value) > 0 {
			d.fail("%d bytes of value in a copy that says that there is none", len(p.Value))
		}
		if d.err != nil {
			return nil
		}
		list = append(list, p)
	}
	return list
}

// A LoadCounter is a Handler that loads from an origin. A leaving node waits until its loads have ended,
// because the others take over its share of the origin's cap once it has gone.
type LoadCounter interface {
	// Loads returns how many loads are running, and how long one may take. Safe for concurrent use.
	Loads() (running int, longest time.Duration)
}

// A Drainer is a Handler that wants to know when its node leaves.
type Drainer interface {
	// Drain is called once the node has announced to the others that it leaves, so that their views assign it
	// no keys. Requests may still arrive. The node leaves when Drain has returned. ctx ends at the deadline
	// for that, or when the node is closed.
	Drain(ctx context.Context)
}
