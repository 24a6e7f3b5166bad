package codec

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"
)

const (
	// MaxKeysPerGet is how many keys one multi-get may ask for.
	MaxKeysPerGet = 1 << 10
	// MaxAnswers is about how many bytes the parts of one answer take, plus some 16 KiB if most of them did
	// not fit. Every connection accepts such a frame, whatever its limit.
	MaxAnswers = 512 << 10
)

// Mode says how a multi-get treats keys that must be filled first.
type Mode uint8

// The modes. The numbers are part of the wire format.
const (
	ModeLook Mode = 0 // do not wait: StatusPending
	ModeWait Mode = 1 // wait for the fills
	ModeWarm Mode = 2 // wait for the fills, at low priority, and send no values
	modeMax       = ModeWarm
)

// The statuses of multi-gets.
const (
	StatusPending Status = 24 // of a part: the key needs a fill, which the request did not wait for, or not long enough
	StatusLeftOut Status = 25 // of a part: it did not fit into the answer
	StatusMany    Status = 26 // Value holds the parts, in the order of the keys: see NextAnswer
)

// Wanted is one key of a multi-get. Decoded, it borrows the bytes of Key.
type Wanted struct {
	Key   []byte
	Fence Mark   // as Request.Fence
	Have  uint64 // as Request.Have, 0: no copy
}

// wantedSize is the most, in bytes, that a key takes besides its own length.
const wantedSize = 10 + 8 + 1 + 8 + 2

// ManySize returns an upper bound on the bytes that a key of the given length takes in a multi-get.
func ManySize(key int) int { return wantedSize + key }

func (r *Request) manySize() (n int) {
	for i := range r.Many {
		n += ManySize(len(r.Many[i].Key))
	}
	return n
}

func appendMany(dst []byte, r *Request) []byte {
	dst = appendChain(dst, r.Chain)
	dst = append(dst, byte(r.Mode))
	dst = binary.AppendUvarint(dst, uint64(len(r.Many)))
	for i := range r.Many {
		w := &r.Many[i]
		dst = appendMark(dst, w.Fence)
		if w.Have != 0 {
			dst = binary.BigEndian.AppendUint64(append(dst, 1), w.Have)
		} else {
			dst = append(dst, 0)
		}
		dst = appendBytes(dst, w.Key)
	}
	return dst
}

// many reads what appendMany wrote.
func (d *decoder) many(r *Request) {
	r.Chain = d.chain(r.Chain)
	if r.Mode = Mode(d.byte()); r.Mode > modeMax {
		d.newer("mode %d", r.Mode)
	}
	n := d.count("keys", MaxKeysPerGet, 3)
	r.Many = slices.Grow(r.Many, n)
	for range n {
		w := Wanted{Fence: d.mark()}
		switch have := d.byte(); have {
		case 0:
		case 1:
			w.Have = d.uint64()
		default:
			d.fail("%d where it was due whether there is a copy", have)
		}
		w.Key = d.bytes("key", MaxKey)
		r.Many = append(r.Many, w)
	}
}

// Answers are the parts of an answer to a multi-get, in the order of its keys. The zero value has none. It
// borrows the values until the answer is appended to a frame.
type Answers struct {
	heads []byte // each part without its value, one after the other
	parts []part
	size  int
}

type part struct {
	end   int // of its head
	value []byte
}

// partRoom is the most bytes that the length field of a part takes.
const partRoom = 5

// Add adds r as the next part and borrows only its Value. If r does not fit, Add adds a part with
// StatusLeftOut instead and returns false.
func (a *Answers) Add(r *Response) bool {
	start := len(a.heads)
	value := r.Value
	r.Value = nil
	a.heads = appendAnswer(a.heads, r)
	r.Value = value
	if r.Status != StatusValue {
		value = nil
	}
	fits := a.size+len(a.heads)-start+len(value)+partRoom <= MaxAnswers
	if !fits && r.Status != StatusPending && r.Status != StatusLeftOut {
		value = nil
		a.heads = appendAnswer(a.heads[:start], &Response{Status: StatusLeftOut})
	}
	a.parts = append(a.parts, part{len(a.heads), value})
	a.size += len(a.heads) - start + len(value) + partRoom
	return fits
}

// Len returns the number of parts.
func (a *Answers) Len() int { return len(a.parts) }

func (a *Answers) appendTo(dst []byte) []byte {
	start := 0
	for _, p := range a.parts {
		dst = binary.AppendUvarint(dst, uint64(p.end-start+len(p.value)))
		dst = append(dst, a.heads[start:p.end]...)
		dst = append(dst, p.value...)
		start = p.end
	}
	return dst
}

// ValueSize returns an upper bound on the bytes that Value, or Many, takes in the frame.
func (r *Response) ValueSize() int {
	if r.Many != nil {
		return r.Many.size
	}
	return len(r.Value)
}

// NextAnswer fills r with the first of parts, which are the Value of an answer with StatusMany, and returns
// the remaining parts. r borrows parts and reuses its Tags. The error wraps ErrFrame.
func NextAnswer(r *Response, parts []byte) (rest []byte, err error) {
	if rest, ok := r.next(parts); ok {
		return rest, nil
	}
	d := decoder{b: parts}
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.fail("a part of %d bytes where %d are left", n, len(d.b))
	}
	if d.err != nil {
		return nil, d.err
	}
	if err := DecodeResponse(r, 0, d.b[:n:n]); err != nil {
		return nil, err
	}
	switch r.Status { // Answers.Add sends none of these: they do not concern a key
	case StatusMany, StatusSynced, StatusDone:
		return nil, malformed("status %d in a part, which is about one key", r.Status)
	}
	return d.b[n:], nil
}

// answers pools Answers.
var answers = sync.Pool{New: func() any { return new(Answers) }}

// NewAnswers returns Answers with room for n parts.
func NewAnswers(n int) *Answers {
	a := answers.Get().(*Answers)
	a.heads, a.parts = slices.Grow(a.heads, 40*n), slices.Grow(a.parts, n)
	return a
}

// Release returns the memory of a to a pool. The caller must have appended a to a frame and must not use it
// afterwards. Calling Release is optional.
func (a *Answers) Release() {
	if cap(a.parts) > MaxKeysPerGet || cap(a.heads) > 64*MaxKeysPerGet {
		return
	}
	clear(a.parts)
	*a = Answers{heads: a.heads[:0], parts: a.parts[:0]}
	answers.Put(a)
}

// next is a fast path of NextAnswer for most parts: values that are fresh and have no tags. It returns false
// for any other part or a malformed one, and r is then invalid.
func (r *Response) next(parts []byte) (rest []byte, ok bool) {
	n, b, ok := number(parts)
	if !ok || n > uint64(len(b)) || n < 10 || b[0] != byte(StatusValue) || b[1]&(FlagTagged|FlagStale) != 0 {
		return nil, false
	}
	b, rest = b[:n:n], b[n:]
	r.ID, r.View, r.Seq, r.RetryAfter, r.Why = 0, 0, 0, 0, 0
	r.Owner, r.Text, r.Tags, r.Members, r.Many, r.buf, r.release = nil, nil, r.Tags[:0], r.Members[:0], nil, nil, nil
	r.Status, r.Flags, r.Incarnation = StatusValue, b[1], binary.BigEndian.Uint64(b[2:])
	var age, soft, hard, held uint64
	var oks [5]bool
	age, b, oks[0] = number(b[10:])
	soft, b, oks[1] = number(b)
	hard, b, oks[2] = number(b)
	held, b, oks[3] = number(b)
	r.Version, b, oks[4] = number(b)
	r.Age, r.Hard, r.Held = time.Duration(age)*time.Microsecond, time.Duration(hard)*time.Microsecond, time.Duration(held)*time.Microsecond
	r.Soft = time.Duration(int64(soft>>1)^-int64(soft&1)) * time.Microsecond // zigzag
	if oks != [5]bool{true, true, true, true, true} || max(age, soft/2, hard, held) >= maxMicros || len(b) < 8 {
		return nil, false
	}
	r.Etag, r.Value = binary.BigEndian.Uint64(b), b[8:]
	return rest, true
}

// number decodes a number like binary.Uvarint.
func number(b []byte) (v uint64, rest []byte, ok bool) {
	for i, c := range b {
		if c < 0x80 {
			v |= uint64(c) << (7 * i)
			return v, b[i+1:], i < binary.MaxVarintLen64-1
		}
		v |= uint64(c&0x7f) << (7 * i)
	}
	return 0, nil, false
}
