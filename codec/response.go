package codec

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Status says how a request ended.
type Status uint8

// The statuses. The numbers are part of the wire format.
const (
	StatusValue      Status = 1  // Value holds the encoded value
	StatusNotFound   Status = 2  // the origin says that the key does not exist
	StatusDone       Status = 3  // the invalidations are applied
	StatusMoved      Status = 4  // the responder is not the owner in its view (View)
	StatusFailed     Status = 5  // the fill failed; Text says why
	StatusOverloaded Status = 6  // no permit; try again after RetryAfter
	StatusTimeout    Status = 7  // the time that the request carried has run out
	StatusUnknown    Status = 8  // the namespace does not exist here
	StatusMismatch   Status = 9  // the namespace differs here: in its contract or its codec
	StatusCycle      Status = 10 // the fill waits for itself
	StatusClosed     Status = 11 // the cache there is closed
	StatusTooLarge   Status = 12 // the value exceeds the size limit
	StatusBusy       Status = 13 // the node has used up its budget of bytes or in-flight requests
	StatusSynced     Status = 14 // Value holds the News that a sync asked for, or that the sender of a push lacks
	StatusNotCached  Status = 15 // nothing is cached, and the request did not allow a fill
	StatusSame       Status = 16 // the value is the same as the requester's copy
	StatusIsolated   Status = 17 // the responder has lost contact with most members
	// StatusUnsupported: one of the two members knows a feature that the other does not. Either the responder
	// does not know the request's kind or one of its flags, or the decoded answer has a status that is
	// unknown here. Text says which.
	StatusUnsupported Status = 18
	statusMax                = StatusUnsupported
)

// Flags of an answer.
const (
	// FlagStale: the value is past its soft expiry.
	FlagStale uint8 = 1 << iota
	// FlagFilled: this request waited for a fill.
	FlagFilled
	// FlagTagged: Tags is set.
	FlagTagged
	// FlagSameView: the requester's view equalled the responder's when the request arrived.
	FlagSameView
	// FlagRelayed: the answer is that of the request's Target.
	FlagRelayed
	// FlagPassing: the value is older than a version known to exist; do not keep it.
	FlagPassing
	// FlagShare, with StatusSynced and FlagSameView: the responder states with FlagFits whether its loads fit
	// its share of the cap in this view. Earlier versions neither set nor read the two flags.
	FlagShare
	// FlagFits: see FlagShare.
	FlagFits
)

// A Response is the answer to a Request as it crosses the wire.
//
// On the responder's side Value is borrowed: it is copied into the frame. On the requester's side Value
// belongs to a pooled buffer, which Release returns.
type Response struct {
	ID     uint64
	Status Status
	Flags  uint8
	View   uint64 // with StatusMoved: the responder's view
	// Incarnation names the cache instance that answers. StatusMoved does not send it. With StatusFailed it
	// is the handlers' number for the error; 0: the error has only its text.
	Incarnation uint64
	Age         time.Duration // since the start of the load, microseconds on the wire
	Soft        time.Duration // from now to soft expiry; negative: past it
	Hard        time.Duration // from now to hard expiry
	Held        time.Duration // how long the responder held the request before it answered
	RetryAfter  time.Duration
	Version     uint64   // the origin's version of the value, 0: unknown
	Tags        []uint32 // with FlagTagged: hashes of the value's tags
	// Etag stands for the value and its tags: equal Etags from the same Incarnation mean equal content. With
	// StatusValue.
	Etag uint64
	// Why, with FlagStale, is the reason for a stale value. The handlers define its numbers.
	Why uint8
	// Seq depends on the request. With StatusDone, it is the number up to which the responder has applied all
	// invalidations of the incarnation that started the last one in the request. For a push it is the Token
	// for the next one; 0: not yet. For a put that asks for the responder's clock, it is the reading of that
	// clock.
	Seq     uint64
	Members [][]byte // with StatusDone: the other members in the responder's view, if that differs from the requester's
	Owner   []byte   // the member that failed; with StatusMoved, the owner in the responder's view
	Text    []byte   // the error, cut to MaxErrorText
	Value   []byte
	// Many, with StatusMany, holds on the responder's side what Value holds on the requester's side.
	Many *Answers

	release func([]byte)
	buf     []byte
}

// Own makes r responsible for buf, which Value, Owner, Text and Members point into: Release passes it to
// release once. It is for the receiving side of a connection.
func (r *Response) Own(buf []byte, release func([]byte)) { r.buf, r.release = buf, release }

// Release returns the buffer behind Value, Owner, Text and Members. They must not be used afterwards. A
// second call does nothing. Not safe for concurrent use.
func (r *Response) Release() {
	if r.release != nil {
		f, b := r.release, r.buf
		r.release, r.buf, r.Value, r.Owner, r.Text, r.Members = nil, nil, nil, nil, nil, nil
		f(b)
	}
}

// AppendResponse appends r as a complete frame to dst and returns the extended slice. It cuts Text and Owner
// to their limits.
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

// DecodeResponse fills r from the body of an answer frame. r borrows body. An unknown status becomes
// StatusUnsupported. The error wraps ErrFrame.
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
	case r.Status == 0:
		return malformed("no status")
	default: // a later version knows what follows
		r.Text = fmt.Appendf(nil, "status %d is unknown here", r.Status)
		r.Status = StatusUnsupported
		return nil
	}
	return d.end()
}
