package codec

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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
	// FrameOverhead is the most, in bytes, that a frame holds besides its value and its keys.
	FrameOverhead = 4 << 10

	// MaxKey is the longest key, in bytes. Every get hashes the key, and every tier keeps it, so a long key
	// costs more than the round trip it saves.
	MaxKey = 1 << 10
	// MaxNamespace is the longest namespace name, in bytes: each request carries it.
	MaxNamespace = 128
	// MaxChain is the maximum number of fills that may wait for one another across the cluster.
	MaxChain = 16
	// MaxErrorText is the length, in bytes, to which the text of an error is cut before it crosses the wire.
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
	KindCancel     Kind = 4  // the requester no longer waits for the request with this id; no answer
	KindPing       Kind = 5  // are you there
	KindSync       Kind = 6  // a request to compare which invalidations have been applied
	KindGetMany    Kind = 7  // a request for the values of many keys
	KindPush       Kind = 8  // a request to keep copies that the requester had
	KindPut        Kind = 9  // a request to take a value as if it had just been loaded
	KindAnswer     Kind = 16 // the answer to a request
	KindPong       Kind = 17 // the answer to a ping
	KindGoodbye    Kind = 18 // the connection is about to be closed, and why
)

// Asks reports whether a frame of this kind is a request, or may be a request of a later version: that holds
// for every number that is not in use for something else.
func (k Kind) Asks() bool {
	switch k {
	case KindHello, KindCancel, KindPing, KindAnswer, KindPong, KindGoodbye:
		return false
	}
	return true
}

// ErrFrame is wrapped by every error that malformed bytes of a frame cause.
var ErrFrame = errors.New("malformed frame")

// ErrUnsupported is wrapped by the error for a complete request whose kind or flag this version does not
// know, because a newer member made it. The member answers it with StatusUnsupported, and the connection
// stays open.
var ErrUnsupported = errors.New("unsupported request")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFrame, fmt.Sprintf(format, args...))
}

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUnsupported, fmt.Sprintf(format, args...))
}

// A Mark names one invalidation: the Seq-th that the cache instance with this
// Incarnation started. The zero Mark names none.
type Mark struct {
	Incarnation uint64
	Seq         uint64
}

// A Handler answers the requests of one namespace. Its methods are called concurrently. They must not retain
// req or what it points to after they return.
type Handler interface {
	// TryServe answers req at once, without blocking, I/O or user code, or it returns false. It runs in the
	// loop that reads the connection.
	TryServe(req *Request, resp *Response) bool
	// Serve answers req and may block. ctx ends with the request's timeout, its cancel, or the connection.
	// Serve runs in its own goroutine.
	Serve(ctx context.Context, req *Request, resp *Response)
	// Stats returns what the stats endpoint shows for the namespace: a value that encoding/json can marshal.
	Stats() any
}

// BeginFrame appends the header of a frame with the kind and id and returns the extended slice. EndFrame,
// given the previous length of dst, fills in the frame's length.
func BeginFrame(dst []byte, kind Kind, id uint64) []byte {
	dst = append(dst, 0, 0, 0, 0, byte(kind))
	return binary.BigEndian.AppendUint64(dst, id)
}

// EndFrame writes the length of the frame that began at start.
func EndFrame(dst []byte, start int) []byte {
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-FrameHeader))
	return dst
}

// FrameLength reads a frame's length field from the first FrameHeader bytes of b. It checks the length
// against limit, the longest frame, in bytes, that the reader accepts.
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
