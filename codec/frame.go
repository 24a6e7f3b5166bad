package codec

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// A frame is what crosses a connection between two nodes:
//
//	length  uint32  bytes that follow, at least FrameMin
//	kind    uint8
//	id      uint64  the request's number on this connection; its answer has the same
//	body            by kind, see the Append functions
//
// All integers are big endian; "uvarint" is encoding/binary's. Every length is
// checked against the bytes that are there before anything is allocated or sliced.
const (
	// FrameHeader is the size in bytes of a frame's length field.
	FrameHeader = 4
	// FrameMin is the least that a frame's length may say: kind and id.
	FrameMin = 1 + 8
	// FrameOverhead is the most, in bytes, that a frame holds beside its value and its keys.
	FrameOverhead = 4 << 10

	// MaxKey is the longest key, in bytes. A key is hashed on every get and is kept in
	// every tier, so a long one costs more than the round trip it saves.
	MaxKey = 1 << 10
	// MaxNamespace is the longest namespace name, in bytes: each request carries it.
	MaxNamespace = 128
	// MaxChain is how many fills may wait for one another across the cluster.
	MaxChain = 16
	// MaxErrorText is where an error's text is cut, in bytes, before it crosses the wire.
	MaxErrorText = 512
	// MaxKeysPerFrame is how many keys and tags, together, one invalidation frame may carry.
	MaxKeysPerFrame = 1 << 12
)

// Kind says what a frame is.
type Kind uint8

// The kinds of frames. The numbers are part of the wire format.
const (
	KindHello      Kind = 1  // first frame of each side
	KindGet        Kind = 2  // a request for a key's value
	KindInvalidate Kind = 3  // a request to apply invalidations
	KindCancel     Kind = 4  // the asker no longer waits for the request with this id; no answer
	KindPing       Kind = 5  // are you there
	KindSync       Kind = 6  // a request to compare which invalidations have been applied
	KindGetMany    Kind = 7  // a request for the values of many keys
	KindPush       Kind = 8  // a request to keep copies that the asker had
	KindPut        Kind = 9  // a request to take a value as if it had just been loaded
	KindAnswer     Kind = 16 // the answer to a request
	KindPong       Kind = 17 // the answer to a ping
	KindGoodbye    Kind = 18 // the connection is about to be closed, and why
)

// ErrFrame is wrapped by every error that malformed bytes of a frame cause.
var ErrFrame = errors.New("malformed frame")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFrame, fmt.Sprintf(format, args...))
}

// A Mark names one invalidation: the Seq-th that the cache instance with this
// Incarnation started. The zero Mark names none.
type Mark struct {
	Incarnation uint64
	Seq         uint64
}

// Flags of a request.
const (
	// FlagSuccessor: the asker could not reach the owner; serve as its successor.
	FlagSuccessor uint8 = 1 << iota
	// FlagMaxAge: MaxAge counts.
	FlagMaxAge
	// FlagDrill: fill although there is a copy, and fall back on it. Who does not know it serves
	// the copy.
	FlagDrill
	// FlagRelay: pass the invalidation on to Target, which the asker cannot reach or does
	// not know, and answer what that answers.
	FlagRelay
	// FlagPrevious: the answerer owned the key before; answer from what is cached, also if it is
	// stale, or with StatusNotCached, which has FlagFilled if a fill is in progress there.
	FlagPrevious
	// FlagNoFill: answer from what is cached, or with StatusNotCached.
	FlagNoFill
	// FlagHave: Have counts.
	FlagHave
	// FlagJoin, with FlagPrevious: wait for the fill in progress, if there is one.
	FlagJoin
)

// A Request is one get, put, invalidate, sync or push as it crosses the wire. A decoded Request borrows
// the bytes it was decoded from: Namespace, Key, Target and the names in News are
// valid only as long as those are, as is Value.
type Request struct {
	Kind      Kind
	ID        uint64
	Flags     uint8
	Namespace []byte
	Schema    uint64        // fingerprint of the namespace's contract and codec
	View      uint64        // fingerprint of the asker's view
	Timeout   time.Duration // what is left of the asker's deadline, microseconds on the wire; 0: none

	// of a get
	MaxAge time.Duration // with FlagMaxAge, microseconds on the wire
	Fence  Mark          // the last invalidation of Key that the asker has applied, if lately
	Chain  []uint64      // the fills that wait for this get, outermost first
	Key    []byte
	Trace  Trace  // with FlagTrace: what the asker does, as its tracer calls it
	Have   uint64 // with FlagHave: the Etag of the copy that the asker has

	// of a get of many, which has Chain too
	Mode Mode
	Many []Wanted

	// of a put, which has Fence and Key too
	Version uint64        // the origin's version of the value
	TTL     time.Duration // until soft expiry, microseconds on the wire; 0: what the contract says
	Tags    []uint32      // hashes of its tags
	Value   []byte        // encoded

	// of an invalidate, a sync and a push
	Target []byte // with FlagRelay, a member's name
	News   *News  // nil: none

	// of a push
	Token  uint64   // what the answerer gave out last, 0: none
	Pushed []Pushed // looked at after that
}

// Size is at least how many bytes AppendRequest appends.
func (r *Request) Size() int {
	if r.News == nil {
		return FrameOverhead + len(r.Key) + len(r.Value) + 4*len(r.Tags) + r.manySize()
	}
	n := FrameOverhead + r.News.Size()
	for i := range r.Pushed {
		n += r.Pushed[i].size()
	}
	return n
}

// Status says how a request ended.
type Status uint8

// The statuses. The numbers are part of the wire format.
const (
	StatusValue      Status = 1  // Value holds the encoded value
	StatusNotFound   Status = 2  // the origin says that the key does not exist
	StatusDone       Status = 3  // the invalidations are applied
	StatusMoved      Status = 4  // not the owner in the answerer's view (View)
	StatusFailed     Status = 5  // the fill failed; Text says why
	StatusOverloaded Status = 6  // no permit; try again after RetryAfter
	StatusTimeout    Status = 7  // the time that the request carried ran out
	StatusUnknown    Status = 8  // no such namespace here
	StatusMismatch   Status = 9  // the namespace is another one here: contract or codec differ
	StatusCycle      Status = 10 // the fill waits for itself
	StatusClosed     Status = 11 // the cache there is closed
	StatusTooLarge   Status = 12 // the value is larger than the limit
	StatusBusy       Status = 13 // the node's budget of bytes or requests in flight is used up
	StatusSynced     Status = 14 // Value holds the News that a sync asked for, or that a pusher lacks
	StatusNotCached  Status = 15 // there is no copy, and no fill was wanted
	StatusSame       Status = 16 // the value is the one that the asker has
	StatusIsolated   Status = 17 // the answerer has lost sight of most members
	statusMax               = StatusIsolated
)

// Flags of an answer.
const (
	// FlagStale: the value is past its soft expiry.
	FlagStale uint8 = 1 << iota
	// FlagFilled: this request waited for a fill.
	FlagFilled
	// FlagTagged: Tags counts.
	FlagTagged
	// FlagSameView: the asker's view was the answerer's too when the request came.
	FlagSameView
	// FlagRelayed: the answer is that of the request's Target.
	FlagRelayed
	// FlagPassing: the value is older than a version that is known to exist; do not keep it.
	FlagPassing
)

// A Response is the answer to a Request as it crosses the wire.
//
// On the answering side Value is borrowed: it is copied into the frame. On the
// asking side Value belongs to a pooled buffer, which Release gives back.
type Response struct {
	ID     uint64
	Status Status
	Flags  uint8
	View   uint64 // with StatusMoved: the answerer's view
	// Incarnation tells which cache instance answers. It is not sent with StatusMoved.
	Incarnation uint64
	Age         time.Duration // since the start of the load, microseconds on the wire
	Soft        time.Duration // from now to soft expiry; negative: past it
	Hard        time.Duration // from now to hard expiry
	Held        time.Duration // how long the answerer had the request before it answered
	RetryAfter  time.Duration
	Version     uint64   // the origin's version of the value, 0: unknown
	Tags        []uint32 // with FlagTagged: hashes of the value's tags
	// Etag stands for the value and its tags: the same one from the same Incarnation means the
	// same content. With StatusValue.
	Etag uint64
	// Why, with FlagStale, is why a stale value is given; what the numbers mean is the handlers' own affair.
	Why uint8
	// Seq is, with StatusDone, up to which number all invalidations of the incarnation that
	// started the last one in the request have been applied; for a push, the Token for the next one, 0: not yet.
	Seq     uint64
	Members [][]byte // with StatusDone: who else is in the answerer's view, if that is not the asker's
	Owner   []byte   // who failed; with StatusMoved, who is the owner in the answerer's view
	Text    []byte   // the error, cut to MaxErrorText
	Value   []byte
	// Many, with StatusMany, is on the answering side what Value is on the asking side.
	Many *Answers

	release func([]byte)
	buf     []byte
}

// Own makes r responsible for buf, which Value, Owner, Text and Members point into:
// Release hands it to release once. It is for the receiving side of a connection.
func (r *Response) Own(buf []byte, release func([]byte)) { r.buf, r.release = buf, release }

// Release gives the buffer behind Value, Owner, Text and Members back. They must not be
// used afterwards. A second call does nothing. Not safe for concurrent use.
func (r *Response) Release() {
	if r.release != nil {
		f, b := r.release, r.buf
		r.release, r.buf, r.Value, r.Owner, r.Text, r.Members = nil, nil, nil, nil, nil, nil
		f(b)
	}
}

// A Handler answers the requests of one namespace. Its methods are called
// concurrently, and must not keep req or what it points to after they return.
type Handler interface {
	// TryServe answers req at once, without blocking, I/O or user code, or reports
	// false. It runs in the loop that reads the connection.
	TryServe(req *Request, resp *Response) bool
	// Serve answers req and may wait; ctx ends with the request's timeout, its
	// cancel, or the connection. It runs in a goroutine of its own.
	Serve(ctx context.Context, req *Request, resp *Response)
	// Stats returns what the stats endpoint shows of the namespace: a value that
	// encoding/json can marshal.
	Stats() any
}

// BeginFrame appends a frame's header for the kind and id and returns the
// extended slice; EndFrame, given the length of dst before, fills in the length.
func BeginFrame(dst []byte, kind Kind, id uint64) []byte {
	dst = append(dst, 0, 0, 0, 0, byte(kind))
	return binary.BigEndian.AppendUint64(dst, id)
}

// EndFrame writes the length of the frame that began at start.
func EndFrame(dst []byte, start int) []byte {
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-FrameHeader))
	return dst
}

// FrameLength reads a frame's length field from the first FrameHeader bytes of b and
// checks it against limit, the longest frame, in bytes, that the reader accepts.
func FrameLength(b []byte, limit int) (int, error) {
	if len(b) < FrameHeader {
		return 0, malformed("%d bytes where a length of %d was due", len(b), FrameHeader)
	}
	n := binary.BigEndian.Uint32(b)
	if n < FrameMin {
		return 0, malformed("length %d, the least is %d", n, FrameMin)
	}
	if int64(n) > int64(limit) {
		return 0, malformed("length %d, the limit is %d", n, limit)
	}
	return int(n), nil
}

// FrameKind splits a frame (without its length field) into kind, id and body.
func FrameKind(frame []byte) (Kind, uint64, []byte, error) {
	if len(frame) < FrameMin {
		return 0, 0, nil, malformed("%d bytes, the least is %d", len(frame), FrameMin)
	}
	return Kind(frame[0]), binary.BigEndian.Uint64(frame[1:]), frame[FrameMin:], nil
}

// AppendRequest appends r as a whole frame to dst and returns the extended slice.
// The caller has checked the limits of keys, namespace and chain.
func AppendRequest(dst []byte, r *Request) []byte {
	start := len(dst)
	dst = BeginFrame(dst, r.Kind, r.ID)
	dst = append(dst, r.Flags)
	dst = appendBytes(dst, r.Namespace)
	dst = binary.BigEndian.AppendUint64(dst, r.Schema)
	dst = binary.BigEndian.AppendUint64(dst, r.View)
	dst = appendDuration(dst, r.Timeout)
	switch r.Kind {
	case KindGet:
	case KindGetMany:
		return EndFrame(appendMany(dst, r), start)
	case KindPut:
		dst = appendMark(dst, r.Fence)
		dst = binary.AppendUvarint(dst, r.Version)
		dst = appendDuration(dst, r.TTL)
		dst = appendTags(dst, r.Tags)
		dst = appendBytes(dst, r.Key)
		return EndFrame(append(dst, r.Value...), start)
	default:
		if r.Flags&FlagRelay != 0 {
			dst = appendBytes(dst, r.Target)
		}
		news := r.News
		if news == nil {
			news = &News{}
		}
		dst = AppendNews(dst, news)
		if r.Kind == KindPush {
			dst = appendPushed(binary.BigEndian.AppendUint64(dst, r.Token), r.Pushed)
		}
		return EndFrame(dst, start)
	}
	if r.Flags&FlagTrace != 0 {
		dst = append(dst, r.Trace[:]...)
	}
	if r.Flags&FlagMaxAge != 0 {
		dst = appendDuration(dst, r.MaxAge)
	}
	if r.Flags&FlagHave != 0 {
		dst = binary.BigEndian.AppendUint64(dst, r.Have)
	}
	dst = appendMark(dst, r.Fence)
	dst = appendChain(dst, r.Chain)
	dst = appendBytes(dst, r.Key)
	return EndFrame(dst, start)
}

func appendChain(dst []byte, chain []uint64) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(chain)))
	for _, c := range chain {
		dst = binary.BigEndian.AppendUint64(dst, c)
	}
	return dst
}

// DecodeRequest fills r from the body of a get, get of many, put, invalidate, sync or push frame. r borrows body;
// r.News, r.Many, r.Pushed, r.Tags and r.Chain reuse what r had. The error wraps ErrFrame.
func DecodeRequest(r *Request, kind Kind, id uint64, body []byte) error {
	d := decoder{b: body}
	news, pushed := r.News, r.Pushed
	*r = Request{Kind: kind, ID: id, Chain: r.Chain[:0], Tags: r.Tags[:0], Many: r.Many[:0]}
	r.Flags = d.byte()
	r.Namespace = d.bytes("namespace", MaxNamespace)
	r.Schema = d.uint64()
	r.View = d.uint64()
	r.Timeout = d.duration()
	switch kind {
	case KindInvalidate, KindSync, KindPush:
		if r.Flags&FlagRelay != 0 {
			r.Target = d.bytes("target", MaxNamespace)
		}
		if r.News = news; news == nil {
			r.News = new(News)
		}
		d.news(r.News)
		if kind == KindPush {
			r.Token = d.uint64()
			r.Pushed = d.pushed(pushed)
		}
	case KindGet:
		if r.Flags&FlagTrace != 0 {
			r.Trace = d.trace()
		}
		if r.Flags&FlagMaxAge != 0 {
			r.MaxAge = d.duration()
		}
		if r.Flags&FlagHave != 0 {
			r.Have = d.uint64()
		}
		r.Fence = d.mark()
		r.Chain = d.chain(r.Chain)
		r.Key = d.bytes("key", MaxKey)
	case KindGetMany:
		d.many(r)
	case KindPut:
		r.Fence = d.mark()
		r.Version = d.uvarint()
		r.TTL = d.duration()
		r.Tags = d.tags(r.Tags)
		r.Key = d.bytes("key", MaxKey)
		r.Value = d.rest()
	default:
		return malformed("kind %d is no request", kind)
	}
	return d.end()
}

// AppendResponse appends r as a whole frame to dst and returns the extended slice.
// Text and Owner are cut to their limits.
func AppendResponse(dst []byte, r *Response) []byte {
	start := len(dst)
	return EndFrame(appendAnswer(BeginFrame(dst, KindAnswer, r.ID), r), start)
}

// appendAnswer appends an answer's body.
func appendAnswer(dst []byte, r *Response) []byte {
	dst = append(dst, byte(r.Status), r.Flags)
	if r.Status == StatusMoved {
		dst = binary.BigEndian.AppendUint64(dst, r.View)
	} else {
		dst = binary.BigEndian.AppendUint64(dst, r.Incarnation)
	}
	switch r.Status {
	case StatusValue, StatusNotFound, StatusSame:
		dst = appendDuration(dst, r.Age)
		dst = binary.AppendVarint(dst, floorMicros(r.Soft))          // never later than it is
		dst = appendDuration(dst, r.Hard.Truncate(time.Microsecond)) // never later than it is
		dst = appendDuration(dst, r.Held.Truncate(time.Microsecond)) // never longer than it was
		dst = binary.AppendUvarint(dst, r.Version)
		if r.Flags&FlagStale != 0 {
			dst = append(dst, r.Why)
		}
		if r.Flags&FlagTagged != 0 {
			dst = appendTags(dst, r.Tags)
		}
		if r.Status == StatusValue {
			dst = binary.BigEndian.AppendUint64(dst, r.Etag)
			dst = append(dst, r.Value...)
		}
	case StatusDone:
		dst = binary.AppendUvarint(dst, r.Seq)
		dst = binary.AppendUvarint(dst, uint64(min(len(r.Members), MaxMembers)))
		for _, name := range r.Members[:min(len(r.Members), MaxMembers)] {
			dst = appendBytes(dst, cut(name, MaxNamespace))
		}
	case StatusSynced:
		dst = append(dst, r.Value...)
	case StatusMany:
		if r.Many != nil {
			return r.Many.appendTo(dst)
		}
		dst = append(dst, r.Value...)
	case StatusPending, StatusLeftOut:
	case StatusMoved:
		dst = appendBytes(dst, cut(r.Owner, MaxNamespace))
	default:
		dst = appendDuration(dst, r.RetryAfter)
		dst = appendBytes(dst, cut(r.Owner, MaxNamespace))
		dst = appendBytes(dst, cut(r.Text, MaxErrorText))
	}
	return dst
}

// DecodeResponse fills r from the body of an answer frame. r borrows body. The error
// wraps ErrFrame.
func DecodeResponse(r *Response, id uint64, body []byte) error {
	d := decoder{b: body}
	*r = Response{ID: id, Tags: r.Tags[:0], Members: r.Members[:0]}
	r.Status = Status(d.byte())
	r.Flags = d.byte()
	if number := d.uint64(); r.Status == StatusMoved {
		r.View = number
	} else {
		r.Incarnation = number
	}
	switch {
	case d.err != nil:
		return d.err
	case r.Status == StatusValue || r.Status == StatusNotFound || r.Status == StatusSame:
		r.Age = d.duration()
		r.Soft = d.signedDuration()
		r.Hard = d.duration()
		r.Held = d.duration()
		r.Version = d.uvarint()
		if r.Flags&FlagStale != 0 {
			r.Why = d.byte()
		}
		if r.Flags&FlagTagged != 0 {
			r.Tags = d.tags(r.Tags)
		}
		if r.Status == StatusValue {
			r.Etag = d.uint64()
			r.Value = d.rest()
		}
	case r.Status == StatusDone:
		r.Seq = d.uvarint()
		for range d.count("members", MaxMembers, 1) {
			r.Members = append(r.Members, d.bytes("member", MaxNamespace))
		}
	case r.Status == StatusSynced || r.Status == StatusMany:
		r.Value = d.rest()
	case r.Status == StatusPending || r.Status == StatusLeftOut:
	case r.Status == StatusMoved:
		r.Owner = d.bytes("owner", MaxNamespace)
	case r.Status >= StatusFailed && r.Status <= statusMax:
		r.RetryAfter = d.duration()
		r.Owner = d.bytes("owner", MaxNamespace)
		r.Text = d.bytes("text", MaxErrorText)
	default:
		return malformed("status %d is unknown", r.Status)
	}
	return d.end()
}

func cut(b []byte, n int) []byte {
	if len(b) > n {
		return b[:n]
	}
	return b
}

func appendBytes(dst, b []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

func appendMark(dst []byte, m Mark) []byte {
	dst = binary.AppendUvarint(dst, m.Seq)
	if m.Seq != 0 {
		dst = binary.BigEndian.AppendUint64(dst, m.Incarnation)
	}
	return dst
}

// appendDuration appends d in microseconds, rounded up, so that a positive one never
// becomes zero; a negative one becomes zero. One that would not fit after the rounding is
// cut to the longest that does.
func appendDuration(dst []byte, d time.Duration) []byte {
	if d <= 0 {
		return append(dst, 0)
	}
	us := uint64(d) / 1000
	if uint64(d)%1000 != 0 {
		us++
	}
	us = min(us, maxMicros)
	return binary.AppendUvarint(dst, us)
}

// floorMicros returns d in microseconds, rounded down also where it is negative: what is
// past stays past.
func floorMicros(d time.Duration) int64 {
	us := d.Microseconds()
	if d%time.Microsecond < 0 && us > -maxMicros {
		us--
	}
	return us
}

const maxMicros = math.MaxInt64 / 1000

// decoder reads a body from the front; the first error sticks and everything read
// after it is zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = malformed(format, args...)
	}
	d.b = nil
}

func (d *decoder) byte() byte {
	if len(d.b) < 1 {
		d.fail("cut short")
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) uint64() uint64 {
	if len(d.b) < 8 {
		d.fail("cut short")
		return 0
	}
	v := binary.BigEndian.Uint64(d.b)
	d.b = d.b[8:]
	return v
}

func (d *decoder) uint32() uint32 {
	if len(d.b) < 4 {
		d.fail("cut short")
		return 0
	}
	v := binary.BigEndian.Uint32(d.b)
	d.b = d.b[4:]
	return v
}

// rest takes all that is left.
func (d *decoder) rest() (b []byte) {
	if d.err == nil {
		b, d.b = d.b[:len(d.b):len(d.b)], nil
	}
	return b
}

func appendTags(dst []byte, tags []uint32) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(tags)))
	for _, tag := range tags {
		dst = binary.BigEndian.AppendUint32(dst, tag)
	}
	return dst
}

// chain appends a chain to dst.
func (d *decoder) chain(dst []uint64) []uint64 {
	for range d.count("chain", MaxChain, 8) {
		dst = append(dst, d.uint64())
	}
	return dst
}

// tags appends tags to dst.
func (d *decoder) tags(dst []uint32) []uint32 {
	for range d.count("tags", MaxTags, 4) {
		dst = append(dst, d.uint32())
	}
	return dst
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("bad number")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) duration() time.Duration {
	us := d.uvarint()
	if us > maxMicros {
		d.fail("duration out of range")
		return 0
	}
	return time.Duration(us) * time.Microsecond
}

func (d *decoder) signedDuration() time.Duration {
	us, n := binary.Varint(d.b)
	if n <= 0 || us > maxMicros || us < -maxMicros {
		d.fail("bad duration")
		return 0
	}
	d.b = d.b[n:]
	return time.Duration(us) * time.Microsecond
}

func (d *decoder) mark() Mark {
	m := Mark{Seq: d.uvarint()}
	if m.Seq != 0 {
		m.Incarnation = d.uint64()
	}
	return m
}

func (d *decoder) bytes(what string, limit int) []byte {
	n := d.uvarint()
	if n > uint64(limit) {
		d.fail("%s of %d bytes, the limit is %d", what, n, limit)
		return nil
	}
	if n > uint64(len(d.b)) {
		d.fail("%s of %d bytes where %d are left", what, n, len(d.b))
		return nil
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}

// count reads how many elements of at least size bytes follow.
func (d *decoder) count(what string, limit, size int) int {
	n := d.uvarint()
	if n > uint64(limit) {
		d.fail("%d %s, the limit is %d", n, what, limit)
		return 0
	}
	if n > uint64(len(d.b)/size) {
		d.fail("%d %s where %d bytes are left", n, what, len(d.b))
		return 0
	}
	return int(n)
}

func (d *decoder) end() error {
	if d.err == nil && len(d.b) != 0 {
		d.fail("%d bytes too many", len(d.b))
	}
	return d.err
}
