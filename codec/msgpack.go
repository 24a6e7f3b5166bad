package codec

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/vmihailenco/msgpack/v5"
)

// Msgpack returns the default codec: MessagePack, with structs as arrays of their fields
// in order, which is two to four times faster than as maps of names. So a change of a struct's
// fields changes what bytes mean; Schema is what keeps two versions from reading each other's.
// Types that implement msgpack's or encoding's marshalling interfaces encode themselves.
func Msgpack[V any]() Codec[V] {
	c := &msgpackCodec[V]{}
	c.encoders.New = func() any {
		e := &msgpackEncoder{}
		e.enc = msgpack.NewEncoder(&e.out)
		return e
	}
	c.decoders.New = func() any { return &msgpackDecoder{dec: msgpack.NewDecoder(nil)} }
	return c
}

type msgpackCodec[V any] struct {
	encoders sync.Pool // of *msgpackEncoder
	decoders sync.Pool // of *msgpackDecoder
}

type msgpackEncoder struct {
	enc *msgpack.Encoder
	out appender
}

type msgpackDecoder struct {
	dec *msgpack.Decoder
	src bytes.Reader
}

// appender is the writer that appends.
type appender struct{ b []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}

func (a *appender) WriteByte(c byte) error {
	a.b = append(a.b, c)
	return nil
}

func (c *msgpackCodec[V]) Name() string { return "msgpack" }

func (c *msgpackCodec[V]) Append(dst []byte, v V) ([]byte, error) {
	e := c.encoders.Get().(*msgpackEncoder)
	e.out.b = dst
	e.enc.Reset(&e.out)
	e.enc.UseArrayEncodedStructs(true)
	err := e.enc.Encode(&v)
	out := e.out.b
	e.out.b = nil
	c.encoders.Put(e)
	if err != nil {
		return dst, fmt.Errorf("msgpack: %w", err)
	}
	return out, nil
}

func (c *msgpackCodec[V]) Decode(src []byte) (v V, err error) {
	if err := CheckMsgpack(src); err != nil {
		return v, err
	}
	d := c.decoders.Get().(*msgpackDecoder)
	d.src.Reset(src)
	d.dec.Reset(&d.src)
	err = d.dec.Decode(&v)
	left := d.src.Len()
	d.src.Reset(nil)
	c.decoders.Put(d)
	if err != nil {
		var zero V
		return zero, fmt.Errorf("%w: msgpack: %w", ErrValue, err)
	}
	if left != 0 {
		var zero V
		return zero, badValue("%d bytes were not read", left)
	}
	return v, nil
}
