package codec

import (
	"encoding/binary"
	"math/bits"
	"time"
)

// Limits on what members tell one another about invalidations.
const (
	// MaxTag is the longest tag, in bytes. A tag names a set of keys, so its limit is lower than that of a
	// key.
	MaxTag = 256
	// MaxTags is how many tags one value may have. Each read of a tagged value checks all of them.
	MaxTags = 32
	// MaxPositions is how many incarnations' positions one frame may carry.
	MaxPositions = 1 << 12
	// MaxMembers is how many members an answer may name.
	MaxMembers = 1 << 12
)

// Scope says what an invalidation covers.
type Scope uint8

// The scopes. The numbers are part of the wire format.
const (
	ScopeKeys Scope = 1 // the keys named
	ScopeTags Scope = 2 // all values that have one of the tags named
	ScopeAll  Scope = 3 // the whole namespace
	scopeMax        = ScopeAll
)

// An Invalidation is one invalidation as it crosses the wire and as journals keep it. A decoded Invalidation
// borrows its names.
type Invalidation struct {
	Mark  Mark
	Scope Scope
	// Version is the origin's version of what the names stand for; 0: unknown. A value that is loaded later
	// and is older than Version is not kept.
	Version uint64
	Names   [][]byte
}

// A Position says that this member has applied all invalidations that the cache instance with this
// Incarnation has started, up to the Seq-th.
type Position struct {
	Incarnation uint64
	Seq         uint64
	Idle        time.Duration // since the last of them was applied, microseconds on the wire
}

// A Base stands for an incarnation's invalidations up to the Seq-th, which have left the log.
type Base struct {
	Incarnation uint64
	Seq         uint64
	Flush       bool // a member that lacks one of them must treat its whole cache as invalidated
}

// News is what one member tells another about invalidations: its own positions, and the invalidations that
// the other lacks. Bases come before Invalidations, and the entries of one incarnation are in order.
type News struct {
	Positions     []Position
	Bases         []Base
	Invalidations []Invalidation
	Life          time.Duration // the longest time from load to hard expiry among the sender's copies
	More          bool          // the receiver lacks more than this

	names [][]byte
}

// Reset empties n and keeps its memory for reuse.
func (n *News) Reset() {
	*n = News{Positions: n.Positions[:0], Bases: n.Bases[:0], Invalidations: n.Invalidations[:0], names: n.names[:0]}
}

// Size returns an upper estimate of the bytes that AppendNews appends.
func (n *News) Size() int {
	const number = binary.MaxVarintLen64
	size := 5*number + len(n.Positions)*(8+2*number) + len(n.Bases)*(8+number+1)
	for i := range n.Invalidations {
		size += 8 + 3*number + 1
		for _, name := range n.Invalidations[i].Names {
			size += 2 + len(name)
		}
	}
	return size
}

// AppendNews appends n to dst and returns the extended slice. The caller has checked the limits.
func AppendNews(dst []byte, n *News) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(n.Positions)))
	for i := range n.Positions {
		p := &n.Positions[i]
		dst = appendDuration(appendNumber(dst, p.Incarnation, p.Seq), p.Idle)
	}
	dst = binary.AppendUvarint(dst, uint64(len(n.Bases)))
	for i := range n.Bases {
		b := &n.Bases[i]
		dst = appendBool(appendNumber(dst, b.Incarnation, b.Seq), b.Flush)
	}
	dst = binary.AppendUvarint(dst, uint64(len(n.Invalidations)))
	for i := range n.Invalidations {
		v := &n.Invalidations[i]
		dst = appendMark(dst, v.Mark)
		dst = append(dst, byte(v.Scope))
		dst = binary.AppendUvarint(dst, v.Version)
		dst = binary.AppendUvarint(dst, uint64(len(v.Names)))
		for _, name := range v.Names {
			dst = appendBytes(dst, name)
		}
	}
	dst = appendDuration(dst, n.Life)
	return appendBool(dst, n.More)
}

// appendNumber appends a number of an incarnation's invalidations.
func appendNumber(dst []byte, incarnation, seq uint64) []byte {
	return binary.AppendUvarint(binary.BigEndian.AppendUint64(dst, incarnation), seq)
}

// DecodeNews fills n from b, which n borrows, and reuses n's memory. The error wraps ErrFrame, or
// ErrUnsupported if a later version made the News.
func DecodeNews(n *News, b []byte) error {
	d := decoder{b: b}
	d.news(n)
	return d.end()
}

func (d *decoder) news(n *News) {
	n.Reset()
	count := d.count("positions", MaxPositions, 8+1+1)
	n.Positions = room(n.Positions, count)
	for range count {
		n.Positions = append(n.Positions, Position{Incarnation: d.uint64(), Seq: d.uvarint(), Idle: d.duration()})
	}
	count = d.count("bases", MaxPositions, 8+1+1)
	n.Bases = room(n.Bases, count)
	for range count {
		n.Bases = append(n.Bases, Base{Incarnation: d.uint64(), Seq: d.uvarint(), Flush: d.bool()})
	}
	count = d.count("invalidations", MaxKeysPerFrame, 1+8+1+1+1)
	n.Invalidations = room(n.Invalidations, count)
	if most := min(len(d.b)/2, MaxKeysPerFrame); count > 0 && cap(n.names) < most {
		n.names = make([][]byte, 0, 1<<bits.Len(uint(most-1))) // a power of two: it is reallocated only a few times
	}
	for range count {
		v := Invalidation{Mark: d.mark(), Scope: Scope(d.byte()), Version: d.uvarint()}
		if v.Mark.Seq == 0 && d.err == nil {
			d.fail("an invalidation without a number")
		}
		limit, most := MaxKey, MaxKeysPerFrame-len(n.names)
		switch v.Scope {
		case ScopeKeys:
		case ScopeTags:
			limit = MaxTag
		case ScopeAll:
			most = 0
		case 0:
			d.fail("an invalidation without a scope")
		default:
			d.newer("scope %d of an invalidation", v.Scope)
		}
		first := len(n.names)
		for range d.count("names", most, 1+1) {
			name := d.bytes("name", limit)
			if len(name) == 0 && d.err == nil {
				d.fail("an empty name")
			}
			n.names = append(n.names, name)
		}
		v.Names = n.names[first:len(n.names):len(n.names)]
		n.Invalidations = append(n.Invalidations, v)
	}
	n.Life = d.duration()
	n.More = d.bool()
}

// room returns an empty slice with capacity for n elements: s if it has that capacity, otherwise a slice of
// exactly that size.
func room[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, 0, n)
	}
	return s[:0]
}

func appendBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func (d *decoder) bool() bool {
	b := d.byte()
	if b > 1 {
		d.fail("%d where 0 or 1 was due", b)
	}
	return b == 1
}
