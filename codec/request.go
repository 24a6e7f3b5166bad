package codec

import (
	"encoding/binary"
	"math"
	"time"
)

// Flags of a request.
const (
	// FlagSuccessor: the requester could not reach the owner; serve as its successor. With a push: keep the
	// copies in case that happens.
	FlagSuccessor uint8 = 1 << iota
	// FlagMaxAge: MaxAge is set.
	FlagMaxAge
	// FlagDrill: fill even if there is a copy, and fall back on the copy. A member that does not know the
	// flag serves the copy.
	FlagDrill
	// FlagRelay: pass the invalidation or the push on to Target, which the requester cannot reach or does not
	// know, and return Target's answer.
	FlagRelay
	// FlagPrevious: the responder is the key's previous owner. Answer from the cache, even with a stale copy,
	// or with StatusNotCached, which has FlagFilled if a fill is in progress there.
	FlagPrevious
	// FlagNoFill: answer from the cache, or with StatusNotCached.
	FlagNoFill
	// FlagHave: Have is set.
	FlagHave
	// FlagJoin, with FlagPrevious: wait for the fill in progress, if there is one.
	FlagJoin
)

// FlagClock, of a put: Clock and Since are set. A member of an earlier version rejects the request and does
// without the value.
const FlagClock uint8 = 1 << 0

// A Request is one get, put, invalidate, sync or push as it crosses the wire. A decoded Request borrows the
// bytes it was decoded from: Namespace, Key, Value, Target and the names in News are valid only as long as
// those bytes are.
type Request struct {
	Kind      Kind
	ID        uint64
	Flags     uint8
	Namespace []byte
	Schema    uint64        // fingerprint of the namespace's contract and codec
	View      uint64        // fingerprint of the requester's view
	Timeout   time.Duration // what remains of the requester's deadline, microseconds on the wire; 0: no deadline

	// of a get
	MaxAge time.Duration // with FlagMaxAge, microseconds on the wire
	Fence  Mark          // the last invalidation of Key that the requester has applied, if recent
	Chain  []uint64      // the fills that wait for this get, outermost first
	Key    []byte
	Trace  Trace  // with FlagTrace: the requester's span, as its tracer names it
	Have   uint64 // with FlagHave: the Etag of the requester's copy

	// of a multi-get, which uses Chain as well
	Mode Mode
	Many []Wanted

	// of a put, which uses Fence and Key as well
	Version uint64        // the origin's version of the value
	TTL     time.Duration // until soft expiry, microseconds on the wire; 0: as configured for the namespace
	Tags    []uint32      // hashes of its tags
	Value   []byte        // encoded
	// Clock, with FlagClock, is a reading of the responder's clock: the Incarnation and Seq of an earlier answer.
	// Since, in microseconds on the wire, is when the origin had the value, relative to that answer, by the
	// requester's clock. It is 0 or below, because the requester gets the reading during the put. The zero Clock
	// asks for a reading and carries no value.
	Clock Mark
	Since time.Duration

	// of an invalidate, a sync and a push
	Target []byte // with FlagRelay, a member's name
	News   *News  // nil: none

	// of a push
	Token  uint64   // the last token that the responder gave out, 0: none
	Pushed []Pushed // copies that the sender validated after it got Token
}

// Size returns an upper bound on the bytes that AppendRequest appends.
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

// AppendRequest appends r as a complete frame to dst and returns the extended slice. The caller has checked
// the limits of keys, namespace and chain.
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
		if r.Flags&FlagClock != 0 {
			dst = appendMark(dst, r.Clock)
			dst = binary.AppendVarint(dst, floorMicros(r.Since))
		}
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

// knownFlags returns the flags that a request of the kind may have. It returns false if the kind is unknown.
func knownFlags(kind Kind) (flags uint8, known bool) {
	switch kind {
	case KindGet:
		return math.MaxUint8, true
	case KindGetMany:
		return 0, true
	case KindPut:
		return FlagClock, true
	case KindInvalidate, KindSync:
		return FlagRelay, true
	case KindPush:
		return FlagRelay | FlagSuccessor, true
	}
	return 0, false
}

// DecodeRequest fills r from the body of a get, multi-get, put, invalidate, sync or push frame. r borrows
// body; r.News, r.Many, r.Pushed, r.Tags and r.Chain reuse their memory. The error wraps ErrFrame, or
// ErrUnsupported if a later version made the request.
func DecodeRequest(r *Request, kind Kind, id uint64, body []byte) error {
	flags, known := knownFlags(kind)
	switch {
	case !kind.Asks():
		return malformed("kind %d is no request", kind)
	case !known:
		return unsupported("kind %d", kind)
	}
	d := decoder{b: body}
	news, pushed := r.News, r.Pushed
	*r = Request{Kind: kind, ID: id, Chain: r.Chain[:0], Tags: r.Tags[:0], Many: r.Many[:0]}
	if r.Flags = d.byte(); r.Flags&^flags != 0 {
		return unsupported("flags %#x of kind %d", r.Flags&^flags, kind)
	}
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
		if r.Flags&FlagClock != 0 {
			r.Clock = d.mark()
			r.Since = d.signedDuration()
		}
		r.Tags = d.tags(r.Tags)
		r.Key = d.bytes("key", MaxKey)
		r.Value = d.rest()
	}
	return d.end()
}
