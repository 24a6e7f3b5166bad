package codec

import (
	"fmt"
	"reflect"
	"sync"

	"github.com/vmihailenco/msgpack/v5"
)

// keepDecoder is the longest encoding, in bytes, whose decoder is pooled: a decoder retains a buffer as long
// as the longest string that it has read.
const keepDecoder = 1 << 20

// Msgpack returns the default codec: MessagePack, with structs as arrays of their fields in order, which is
// two to four times faster than maps of names. So a change of a struct's fields changes what the bytes mean.
// Schema keeps two versions from reading each other's bytes.
//
// The codec is safe for concurrent use. Types that implement msgpack's or encoding's marshalling interfaces
// encode themselves; their code must withstand hostile bytes. Unexported fields and fields with the tag
// msgpack:"-" are not encoded: Lost names them. A time decodes in UTC, a nil embedded pointer as a zero
// struct, and the contents of an interface as msgpack's choice of type (an int may decode as an int8, a
// struct as a slice). Slices have no capacity beyond their length.
//
// The result of Decode never shares memory with src. Decode rejects, with an error that wraps ErrValue, what
// CheckMsgpack rejects and any value that would allocate more than 256 times its length (at most 128 MiB)
// plus 1 MiB. It counts before it allocates anything; copies of strings come on top. Append rejects with
// ErrValue what Decode would reject, such as a list of more than MaxDepth links or a value that points back
// to itself, because a value that cannot be read back must not be stored. A panic in a value's own methods
// becomes an error.
func Msgpack[V any]() Codec[V] {
	t := reflect.TypeFor[V]()
	c := &msgpackCodec[V]{plan: planOf(t), deep: deep(t, map[reflect.Type]bool{}), shapes: &shapes{tag: "msgpack"}}
	c.finisher = finisher{shapes: c.shapes, utc: true}
	c.finishes = c.finisher.needs(t)
	c.encoders.New = func() any {
		e := &msgpackEncoder[V]{}
		e.enc = msgpack.NewEncoder(&e.out)
		return e
	}
	c.decoders.New = func() any {
		d := &msgpackDecoder{}
		d.dec = msgpack.NewDecoder(&d.src)
		return d
	}
	return c
}

type msgpackCodec[V any] struct {
	plan     *plan
	deep     bool // values can be of any depth
	finishes bool // whether values need a finisher
	shapes   *shapes
	finisher finisher
	encoders sync.Pool // of *msgpackEncoder[V]
	decoders sync.Pool // of *msgpackDecoder
}

type msgpackEncoder[V any] struct {
	enc *msgpack.Encoder
	out appender
	v   V // addressable: methods may have pointer receivers
}

type msgpackDecoder struct {
	dec *msgpack.Decoder
	src source
}

// appender is a writer that appends. It checks from time to time whether what it has appended can still
// become an acceptable value.
type appender struct {
	b    []byte
	from int // where the value begins
	look int // the length of b at which the next check is due
}

func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	if len(a.b) >= a.look {
		return len(p), a.looked()
	}
	return len(p), nil
}

func (a *appender) WriteByte(c byte) error {
	a.b = append(a.b, c)
	if len(a.b) >= a.look {
		return a.looked()
	}
	return nil
}

func (a *appender) looked() error {
	n := len(a.b) - a.from
	if n > maxEncoded {
		return badValue("its encoding is longer than %d bytes", maxEncoded)
	}
	a.look = a.from + 2*n
	return checkSoFar(a.b[a.from:])
}

func (c *msgpackCodec[V]) Name() string { return "msgpack" }

func (c *msgpackCodec[V]) Append(dst []byte, v V) (out []byte, err error) {
	defer func() {
		if p := recover(); p != nil { // do not pool e: its state is unknown
			out, err = dst, fmt.Errorf("msgpack: %T: panic while encoding: %v", v, p)
		}
	}()
	if c.deep {
		w := depthWalk{shapes: c.shapes}
		if err := w.check(reflect.ValueOf(&v).Elem(), 0); err != nil {
			return dst, fmt.Errorf("msgpack: encoding %T: %w", v, err)
		}
	}
	e := c.encoders.Get().(*msgpackEncoder[V])
	e.out, e.v = appender{dst, len(dst), len(dst) + firstLook}, v
	e.enc.Reset(&e.out)
	e.enc.UseArrayEncodedStructs(true)
	err = e.enc.Encode(&e.v)
	out = e.out.b
	var zero V
	e.out.b, e.v = nil, zero
	c.encoders.Put(e)
	if err == nil {
		err = checkMsgpack(out[len(dst):], c.plan)
	}
	if err != nil {
		return dst, fmt.Errorf("msgpack: encoding %T: %w", v, err)
	}
	return out, nil
}

func (c *msgpackCodec[V]) Decode(src []byte) (v V, err error) {
	d := c.decoders.Get().(*msgpackDecoder)
	exts := d.src.exts[:0]
	if err := checkAndNote(src, c.plan, &exts); err != nil {
		c.decoders.Put(d)
		return v, err
	}
	d.src = source{b: src, exts: exts}
	return c.decode(d)
}

// decode decodes the bytes in d.src, which have passed the check.
func (c *msgpackCodec[V]) decode(d *msgpackDecoder) (v V, err error) {
	// msgpack/v5 panics on a value that does not fit the type: nil for a time, a string for a non-empty
	// interface, a slice as a map's key, an unexported embedded pointer.
	defer func() {
		if p := recover(); p != nil {
			var zero V
			v, err = zero, badValue("msgpack: %T: panic while decoding: %v", v, p)
		}
	}()
	d.dec.Reset(&d.src)
	err = d.dec.Decode(&v)
	size, left := len(d.src.b), len(d.src.b)-d.src.i
	d.src.b = nil
	if err == nil && left == 0 {
		if size <= keepDecoder {
			c.decoders.Put(d)
		}
		if c.finishes {
			c.finisher.finish(reflect.ValueOf(&v).Elem())
		}
		return v, nil
	}
	// Do not pool d after an error: it may go on recording what it reads.
	if err == nil {
		err = fmt.Errorf("%d bytes were not read", left)
	}
	var zero V
	return zero, fmt.Errorf("%w: msgpack: %w", ErrValue, err)
}
